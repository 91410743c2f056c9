"""The `penstock` command, also started by python -m penstock."""


def main() -> None:
    from penstock.orchestrator.cli.app import run

    run()


if __name__ == "__main__":
    main()
