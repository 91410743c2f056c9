"""python -m penstock, and the `penstock` command."""


def main() -> None:
    from penstock.orchestrator.cli.app import run

    run()


if __name__ == "__main__":
    main()
