"""A command that was received before is answered with what was said then, and never executed again."""

from asyncio import Future
from collections.abc import Callable, Mapping

from cti_mqtt.bridge.answers import Answers, Command
from cti_mqtt.bridge.checks import Refusal
from cti_mqtt.bridge.examination import body_digest
from cti_mqtt.bridge.recovery import Underway, Unwritten, said_of
from cti_mqtt.bridge.station import Station
from cti_mqtt.bridge.store import CommandKey, KnownCommand, Store


class Repeats:
    """Answers repeats, from whoever knows: the record, or this run while the record does not.

    Args:
        store: the record.
        answers: says it.
        stations: the cyclers, by id.
        underway: the commands of this run that have no end on record.
        unwritten: those that were answered, but whose record lacks some of it.
        take_up: deals with one that an earlier run did not live to answer.
    """

    def __init__(
        self,
        store: Store,
        answers: Answers,
        stations: Mapping[str, Station],
        underway: Underway,
        unwritten: Unwritten,
        take_up: Callable[[KnownCommand], None],
    ) -> None:
        self._store = store
        self._answers = answers
        self._stations = stations
        self._underway = underway
        self._unwritten = unwritten
        self._take_up = take_up

    def look_up(self, command: Command, key: CommandKey, refuse: Callable[[], None]) -> None:
        """It would be refused for what will pass; but what has been answered before is answered the same way."""

        def look(found: "Future[KnownCommand | None]") -> None:
            known = None if found.cancelled() or found.exception() else found.result()
            if known is not None and known.command.digest == body_digest(command):
                self.answer(command, known)
            else:
                refuse()

        self._store.find(key).add_done_callback(look)

    def answer(self, command: Command, known: KnownCommand) -> None:
        """It was received before: the first results, now or when they are there."""
        if said := self._unwritten.results(known):
            self._answers.repeat(command, said)
        elif known.finished:
            self._say_again(command, known)
        else:
            if known.command.key not in self._underway:  # left over from before a restart, and not taken up yet
                self._take_up(known)
            self._wait(command, known.command.key)

    def answer_unread(self, command: Command, key: CommandKey) -> bool:
        """The record cannot be asked: whether this run knows the command all the same, and so has answered or will."""
        digest = body_digest(command)
        if self._underway.is_repeat(key, digest):
            self._wait(command, key)
        elif said := self._unwritten.same(key, digest):
            self._answers.repeat(command, said)
        else:
            return False
        return True

    def finished(self, command: Command) -> None:
        """Its results are said: whoever sent it again meanwhile gets them too."""
        if command.lost:
            self._unwritten.add(command)
        for repeat in self._underway.end(command.key):
            self._answers.repeat(repeat, command.results)

    def _wait(self, command: Command, key: CommandKey) -> None:
        try:
            self._underway.wait(key, command)
        except Refusal as refusal:
            self._refuse(command, refusal)

    def _say_again(self, command: Command, known: KnownCommand) -> None:
        said = said_of(known)
        if said and len(said) == len(known.results):
            self._answers.repeat(command, said)
        else:
            why = "it was received before, but what was said then is not on record, or cannot be read: it is not sent"
            self._refuse(command, Refusal("storage", why))

    def _refuse(self, command: Command, refusal: Refusal) -> None:
        self._answers.refusal(command, self._stations[command.topic.cycler], refusal)
