"""The apps to be mounted: the logout, and the page of one's own sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta, tzinfo

from asgi_sessions._pages.devices import SessionRoutes
from asgi_sessions._pages.frame import Said
from asgi_sessions._pages.logout import EndSessionEndpoint, Redirect
from asgi_sessions._pages.options import RouteOptions, Template
from asgi_sessions._pages.own_sessions import OwnSessions
from asgi_sessions._pages.texts import Translate

from .own_session import OwnSession


class Routes(OwnSession):
    """Make the apps by which people end their sessions."""

    def end_session_endpoint(
        self,
        *,
        redirect_to: str | Redirect | None = None,
        clear_site_data: Sequence[str] = (),
    ) -> EndSessionEndpoint:
        """An ASGI app for the logout route: ``POST`` only (405), refused across sites (403).

        Args:
            redirect_to: where a 303 leads; None for ``{"message": "session ended"}``. Or a
                function, async or not, of the `Session` that has ended, or of None if there was
                none, that returns one or the other: to log out at the provider, too. If it has a
                second parameter, that is what ``request.session`` held, as a dict.
            clear_site_data: what the browser is told to forget, such as ``("cache",)``: after that
                its "Back" shows nothing of whoever has left.

        Raises:
            ConfigurationError: if an argument cannot be one.
        """
        return EndSessionEndpoint(
            self.end_session,
            same_site=self._core.settings.cookie.domain is not None,
            redirect_to=redirect_to,
            trusted=self._core.settings.trusted_origins,
            clear_site_data=clear_site_data,
            by_cookie=lambda scope: not self._context(scope).bearer,
        )

    def routes(
        self,
        *,
        html: bool = True,
        fresh_for: timedelta | None = None,
        login_url: str | None = None,
        confirm_url: str | None = None,
        home_url: str | None = None,
        template: Template | None = None,
        translate: Translate | None = None,
        language: Said[str | None] = None,
        time_zone: Said[str | tzinfo | None] = None,
        links: Said[Mapping[str, str] | None] = None,
        form_fields: Said[Mapping[str, str] | None] = None,
    ) -> SessionRoutes:
        """An ASGI app to mount, at ``/sessions`` for instance, where the person who is logged in
        sees where else they are, and ends it (ASVS 7.5.2). For programs it speaks JSON.

        Args:
            html: whether browsers get a page; False answers everybody with JSON.
            fresh_for: how long ago a person may have proved who they are to end other sessions;
                None for as long as their own lasts. To list them never depends on it.
            login_url: where the page sends people who have no session; None answers with 401.
                Whoever has pressed a button gets a page with a link to it.
            confirm_url: where the link of those leads whose login is too old; `login_url` if None.
            home_url: where its link "Back" leads; None for no link.
            template: makes the page from a `DevicesPage`: a str of HTML, in which it has escaped
                what comes from clients. It needs a Content-Security-Policy of yours.
            translate: further languages, or other words: a mapping of languages such as ``pt-BR``
                to texts by their names, or a function of a language that returns such texts, or
                None. What it leaves out is ours, in English where there is nothing else.
            language: which one the page has, for instance ``de``; None for what the browser would
                rather have (``Accept-Language``).
            time_zone: in which the page tells times: a name such as ``Europe/Berlin``, or a tzinfo;
                None, and a name that is none, for UTC.
            links: further links of the page: their texts, and where they lead.
            form_fields: what each of its forms sends besides, such as the token of the app's own
                protection against forged requests: names and values.

        The last three, and `language`, may each be a function of the scope, which returns it now or
        is a coroutine function.

        Raises:
            ConfigurationError: for options that cannot be.
        """
        options = RouteOptions(
            html=html,
            fresh_for=fresh_for,
            login_url=login_url,
            confirm_url=confirm_url,
            home_url=home_url,
            template=template,
            translate=translate,
            language=language,
            time_zone=time_zone,
            links=links,
            form_fields=form_fields,
        )
        return SessionRoutes(self._own_sessions(options), options, now=self._core.settings.now)

    def _own_sessions(self, options: RouteOptions) -> OwnSessions:
        settings = self._core.settings
        return OwnSessions(
            self,
            options,
            context=self._context,
            trusted=settings.trusted_origins,
            same_site=settings.cookie.domain is not None,
        )
