"""Whoever is to know how a run goes: events, live maps and checkpoints follow each step here, and nowhere else."""

from typing import final

from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.phases import Run
from hoarfrost.reconstruction.starts.agreement import STARTS, StartsResult
from hoarfrost.reconstruction.state.checkpoints import Checkpoints
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.reconstruction.watch.events import Event, EventLog, Progress
from hoarfrost.reconstruction.watch.live import Live


@final
class Observer:
    """Tells `progress` and the `log`, if there are any, what a step has to tell; all of that is for one process alone.

    `live` writes the current maps and `checkpoints` the whole run, where it is time.
    """

    def __init__(
        self,
        log: EventLog | None = None,
        progress: Progress | None = None,
        live: Live | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._log, self._progress = log, progress
        self._live, self._checkpoints = live or Live(), checkpoints or Checkpoints()
        self._starts: StartsResult | None = None

    def after(self, run: Run, env: Env) -> None:
        """Tell, show and keep what there is after a step. Raises StoppedError where the run is to stop."""
        self._show(run, env)
        self.tell(run, env)
        trouble = self._checkpoints.after(run)
        if trouble is not None:
            self.note(run, env, trouble)

    def tell(self, run: Run, env: Env) -> None:
        """Tell what the last step has to tell."""
        for news, tally, fraction_done in run.news:
            self._tell(event_of(news, tally, fraction_done, run.seconds, env))

    def note(self, run: Run, env: Env, message: str) -> None:
        """Tell the user something that is not of the run itself, and not logged."""
        if self._progress is not None:
            news = News(0, env.r_max_of(0), message=message)
            self._progress(event_of(news, run.tally, run.fraction_done.largest, run.seconds, env))

    def _show(self, run: Run, env: Env) -> None:
        starts = run.comparison
        if starts.gains and starts != self._starts:
            self._starts = starts
            self._live.keep(STARTS, vars(starts))
        shown = run.shown(env)
        if shown is not None:
            self._live.offer(shown, run.tally.image_gradients)

    def _tell(self, event: Event) -> None:
        ended = event.fraction_done > 1 - 1e-9
        tells = ended or event.batch_nll is not None or event.nll is not None or event.message is not None
        if self._log is not None and tells:
            self._log.write(event)
        if self._progress is not None:
            self._progress(event)


def event_of(news: News, tally: Tally, fraction_done: float, seconds: float, env: Env) -> Event:
    """The record of something that a step had to tell, at that tally."""
    judged, sum_error = news.judged, news.sum_error
    return Event(
        iteration=tally.iteration,
        start=tally.start,
        stage=news.stage,
        r_max=news.r_max,
        resolution_A=env.length_A / news.r_max,
        batch_nll=news.batch_nll,
        nll=None if judged is None else judged.nll,
        nll_standard_error=None if judged is None else judged.standard_error,
        nll_gain=None if judged is None else judged.gain,
        nll_gain_standard_error=None if judged is None else judged.gain_standard_error,
        nll_gain_beyond_sphere=None if judged is None else judged.beyond_sphere,
        nll_gain_beyond_sphere_standard_error=None if judged is None else judged.beyond_sphere_standard_error,
        ess=news.ess,
        step=news.step_size,
        seconds=seconds,
        image_gradients=tally.image_gradients,
        fraction_done=fraction_done,
        sum_error=None if sum_error is None else sum_error.mean,
        sum_error_standard_error=None if sum_error is None else sum_error.standard_error,
        message=news.message,
        doubts=news.doubts,
    )
