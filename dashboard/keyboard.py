"""Keys one after the other, however fast they come: each when all is done that the one before it
asked for.

Textual hands a letter to the widget in focus at once, and a key that means an action (backspace,
tab, "/") only when it has gone up from there to the app. On a busy machine what is typed behind
such a key would come first: letters in another order, in the field before, or taken as keys of the
screen while the field that they are meant for is still being opened.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from textual.app import App
from textual.events import Event, Key
from textual.message import Message
from textual.message_pump import MessagePump

_PATIENCE_S = 1.0
_LEAVING = ("enter", "escape")  # what is behind them is for who comes next


class Keyboard:
    """Of one app. `hand` is what Textual does with a key."""

    class Followed(Message):
        """Goes behind a key, the same way: from `target` up to the app; `again`: twice."""

        def __init__(self, target: MessagePump, again: bool) -> None:
            super().__init__()
            self.target, self.again = target, again

    def __init__(self, app: App[Any], hand: Callable[[Event], Awaitable[None]]) -> None:
        self._app, self._hand = app, hand
        self._typed: deque[Event] = deque()
        self._behind: Keyboard.Followed | None = None  # the key that is under way
        self._last: Event | None = None  # that one, or the one before
        self._sent = 0.0

    def begin(self) -> None:
        """Once the app has screens."""
        self._app.screen_change_signal.subscribe(self._app, self._turned, immediate=True)
        self._app.set_interval(_PATIENCE_S, self._look)

    async def type(self, event: Event) -> None:
        """A key, or what was pasted."""
        self._typed.append(event)
        await self._send()

    async def _next(self, behind: Followed | None) -> None:
        if behind is self._behind:  # else a screen came in between
            self._behind = None
            await self._send()

    async def _send(self) -> None:
        """A key that is held down does not wait for itself: there would be a picture for each, and
        more keys than pictures."""
        while self._typed and (self._behind is None or _again(self._last, self._typed[0])):
            screen, self._last = self._app.screen, self._typed.popleft()
            target = screen.focused or screen
            await self._hand(self._last)
            self._follow(target if self._app.screen is screen else self._app.screen, again=True)

    def _follow(self, target: MessagePump, again: bool) -> None:
        self._behind, self._sent = self.Followed(target, again), time.monotonic()
        target.post_message(self._behind)

    def followed(self, message: Followed) -> None:
        """It has come up to the app: the first time the key's action has been called, the second
        time also what that posted has been dealt with."""
        if message is not self._behind:
            return
        if message.again:
            self._follow(message.target, again=False)
        else:
            self._app.call_later(self._next, message)  # `focus()` calls later, too

    def _turned(self, _: object) -> None:
        """Another screen: the one before may take what is on its way with it, and this one has to
        have its focus before it gets a key."""
        if self._behind is not None:
            self._follow(self._app.screen, again=False)

    async def _look(self) -> None:
        """Goes on behind a key that was lost with the widget it was for."""
        if self._behind is not None and time.monotonic() - self._sent > _PATIENCE_S:
            await self._next(self._behind)


def _again(last: Event | None, event: Event) -> bool:
    if not (isinstance(last, Key) and isinstance(event, Key)):
        return False
    return event.key == last.key and event.key not in _LEAVING
