"""Stand-ins for what a learner works with."""

from penstock.transport.waits import Waits


class StopsAt:
    """A step that asks its learner to stop once it has made `stop_at` of them."""

    def __init__(self, step, stop_at, learner):
        self._step, self._stop_at, self._learner = step, stop_at, learner

    def __call__(self, *arguments):
        loss = self._step(*arguments)
        if self._step.num_steps >= self._stop_at:
            self._learner.stop()
        return loss

    def __getattr__(self, name):
        return getattr(self._step, name)


class NoStream:
    """A stream on which nothing comes."""

    def next(self, timeout_s, lane=None):
        return None

    def waits(self):
        return Waits().seconds(0.0)
