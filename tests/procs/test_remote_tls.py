"""remote and TLS: real handshakes with scripted peers, each policy, each failure."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from qsend.core.model import Cause, Letter
from qsend.formats import delivery, frames
from tests.certificates import Authority, server_context
from tests.ports import free_port
from tests.remoteprocess import CONTROLS, RemoteProcess, running
from tests.smtppeer import PIPELINED, Odd, Peer, Said, Script

MESSAGE = b"Subject: x\n\nhello\n"
IN_CLEAR = b"K127.0.0.1 accepted message.\nRemote host said: 250 ok\n"
OFFER = b"250-peer\r\n250-STARTTLS\r\n250 PIPELINING"
SECURE = PIPELINED | {"EHLO": OFFER, "STAR": b"220 go"}
RELAY = b"127.0.0.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> bytes:
    return authority.certify("DNS:mx.example.org", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def server(certificate: bytes) -> ssl.SSLContext:
    return server_context(certificate)


@pytest.fixture(scope="module")
def shared() -> Iterator[RemoteProcess]:
    """One process without any control file of TLS."""
    with running() as process:
        yield process


def policy(line: bytes, **files: bytes) -> Mapping[str, bytes]:
    return {"tlspolicy": line + b"\n", **files}


def commands(peer: Peer) -> list[bytes]:
    return [command.split(b" ")[0].split(b":")[0] for command in peer.commands]


ENVELOPE = [b"MAIL", b"RCPT", b"DATA"]


def test_tls_is_used_where_it_is_offered(
    shared: RemoteProcess, server: ssl.SSLContext
) -> None:
    with Peer(SECURE, tls=server) as peer:
        (text,) = shared.outcome(MESSAGE, port=peer.port)
    words = b"TLSv1.3 TLS_AES_256_GCM_SHA384 mx.example.org unverified\n"
    assert text == IN_CLEAR + words
    assert commands(peer) == [b"EHLO", b"STARTTLS", b"EHLO", *ENVELOPE]
    assert peer.contents == [b"Subject: x\r\n\r\nhello\r\n.\r\n"]
    assert b"MAIL" not in b"".join(peer.served[0].packets[:2])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_big_message_arrives_whole(
    shared: RemoteProcess, certificate: bytes, version: ssl.TLSVersion
) -> None:
    context = server_context(certificate)
    context.maximum_version = version
    big = b"".join(b"x" * (at % 97) + b"\n" for at in range(40_000))
    with Peer(SECURE, tls=context) as peer:
        (text,) = shared.outcome(big, port=peer.port)
    assert text.startswith(b"K")
    assert version.name[-3:].replace("_", ".").encode() in text
    assert peer.contents == [big.replace(b"\n", b"\r\n") + b".\r\n"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_is_resumed_on_the_next_connection(
    shared: RemoteProcess, certificate: bytes, version: ssl.TLSVersion
) -> None:
    context = server_context(certificate)
    context.maximum_version = version
    # Told to go after each message, the client has to connect anew.
    script = SECURE | {"DOT": b"421 again please"}
    with Peer(script, tls=context) as peer:
        texts = [shared.outcome(MESSAGE, port=peer.port)[0] for _ in range(3)]
        assert [served.is_resumed for served in peer.served] == [False, True, True]
    assert [text.endswith(b" resumed\n") for text in texts] == [False, True, True]
    assert all(b"mx.example.org unverified" in text for text in texts)


def test_kept_session_serves_several_messages(
    shared: RemoteProcess, server: ssl.SSLContext
) -> None:
    with Peer(SECURE, tls=server) as peer:
        for _ in range(3):
            assert shared.outcome(MESSAGE, port=peer.port)[0].startswith(b"K")
        assert len(peer.served) == 1
        peer.close_connections()
        assert shared.outcome(MESSAGE, port=peer.port)[0].startswith(b"K")
        assert len(peer.served) == 2


def old_tls(certificate: bytes) -> ssl.SSLContext:
    context = server_context(certificate)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # of course it is old
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


NO_HANDSHAKE: list[Said] = [
    b"454 after all not",
    b"\x16\x03\x03\x00\x05hello",
    b"\x15\x03\x03\x00\x02\x02\x28",
    Odd.CLOSE,
    Odd.RESET,
]


@pytest.mark.parametrize("said", NO_HANDSHAKE)
def test_failed_handshake_under_may_is_followed_by_clear(
    shared: RemoteProcess, said: Said
) -> None:
    with Peer(SECURE | {"TLS": said}) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
        assert len(peer.served) == 2
        # It is remembered: the next connection does not try.
        peer.close_connections()
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
        assert len(peer.served) == 3
    assert commands(peer) == [b"EHLO", b"STARTTLS", *([b"EHLO", *ENVELOPE] * 2)]


def test_flush_asks_for_tls_again(
    shared: RemoteProcess, server: ssl.SSLContext
) -> None:
    with Peer(SECURE | {"TLS": Odd.CLOSE}) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
        peer.close_connections()
        shared.send.send(frames.frame(delivery.FORGET, b""))
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
    assert commands(peer).count(b"STARTTLS") == 2


def test_broken_certificate_of_ours_does_not_stop_mail(
    server: ssl.SSLContext,
) -> None:
    # start finds it in time; should it not, TLS cannot be made.
    cert = b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"
    with (
        running(files={"clientcert.pem": cert}) as process,
        Peer(SECURE, tls=server) as peer,
    ):
        assert process.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]


class Inbox:
    """What a real server took."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    async def handle_DATA(
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self.contents.append(envelope.content)
        return "250 taken"


@pytest.mark.parametrize("excluded", ["LOGIN", "PLAIN"])
def test_real_server_that_wants_tls_and_a_login(
    server: ssl.SSLContext, excluded: str
) -> None:
    def judge(*args: object) -> AuthResult:
        given = args[-1]
        assert isinstance(given, LoginPassword)
        is_right = given == LoginPassword(b"ann", b"pa:ss")
        return AuthResult(success=is_right, handled=is_right)

    inbox = Inbox()
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=server,
        require_starttls=True,
        auth_required=True,
        authenticator=judge,
        auth_exclude_mechanism=[excluded],
    )
    controller.start()
    try:
        with running(files=AUTH_FILE) as process:
            (text,) = process.outcome(MESSAGE, port=controller.port)
            wrong = {"me": b"me.example\n", "smtpauth": b"127.0.0.1:ann:bad\n"}
            process.reload(wrong)
            (refusal,) = process.outcome(MESSAGE, port=controller.port)
    finally:
        controller.stop()
    assert text.startswith(b"K127.0.0.1 accepted message.\nRemote host said: 250 taken")
    assert b"\nTLSv1.3 " in text
    assert refusal.startswith(b"ZConnected to 127.0.0.1 but my login was refused.\n")
    assert inbox.contents == [b"Subject: x\r\n\r\nhello\r\n"]


@pytest.mark.parametrize("said", [*NO_HANDSHAKE, None])
def test_failed_handshake_under_encrypt_is_a_deferral(
    said: Said | None, certificate: bytes
) -> None:
    script = SECURE if said is None else SECURE | {"TLS": said}
    with (
        running(files=policy(b"127.0.0.1:encrypt")) as process,
        Peer(script, tls=old_tls(certificate)) as peer,
    ):
        (report,) = process.reports(process.deliver(MESSAGE, port=peer.port))
        assert (report.letter, report.cause) == (Letter.DEFERRAL, Cause.UNREACHABLE)
        assert report.text.startswith(b"Connected to 127.0.0.1 but TLS failed: ")
        assert report.text.endswith(b". (#4.7.5)\n")
        assert len(peer.served) == 1
    assert peer.contents == []


def test_tls_1_1_is_not_spoken(shared: RemoteProcess, certificate: bytes) -> None:
    with Peer(SECURE, tls=old_tls(certificate)) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
    # The peer may see the refusal after the delivery: its threads are joined above.
    assert len(peer.tls_failures) == 1


@pytest.mark.slow
@pytest.mark.parametrize("odd", [Odd.SILENCE, Odd.TRICKLE])
@pytest.mark.parametrize("level", [b"may", b"encrypt"])
def test_handshake_has_a_deadline(odd: Odd, level: bytes) -> None:
    hasty = replace(CONTROLS, timeoutremote=1, timeoutconnect=5)
    with (
        running(hasty, files=policy(b":" + level)) as process,
        Peer(SECURE | {"TLS": odd}) as peer,
    ):
        (text,) = process.outcome(MESSAGE, port=peer.port)
        if level == b"may":
            assert text == IN_CLEAR
        else:
            assert b"TLS failed: timed out. (#4.7.5)\n" in text


def test_words_in_clear_behind_the_starttls_reply_fail_the_session(
    shared: RemoteProcess, server: ssl.SSLContext
) -> None:
    script = SECURE | {"STAR": b"220 go\r\n250-evil\r\n250 AUTH PLAIN"}
    with Peer(script, tls=server) as peer:
        (text,) = shared.outcome(MESSAGE, port=peer.port)
        assert len(peer.served) == 1
    assert text == (
        b"ZConnected to 127.0.0.1 but it broke the protocol: "
        b"words in clear after STARTTLS. (#4.5.0)\n"
    )
    assert commands(peer) == [b"EHLO", b"STARTTLS"]


@pytest.mark.parametrize("code", [b"454 no", b"502 what"])
def test_starttls_refused_under_may_goes_on_in_clear(
    shared: RemoteProcess, code: bytes
) -> None:
    with Peer(SECURE | {"STAR": code}) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
        assert len(peer.served) == 1


@pytest.mark.parametrize("level", [b"encrypt", b"verify"])
@pytest.mark.parametrize(
    ("script", "want"),
    [
        (PIPELINED, b"it does not offer TLS. (#4.7.4)\n"),
        (PIPELINED | {"EHLO": b"502 what"}, b"it does not offer TLS. (#4.7.4)\n"),
        (
            SECURE | {"STAR": b"454 no"},
            b"STARTTLS was refused.\nRemote host said: 454 no\n",
        ),
    ],
)
def test_nothing_goes_out_in_clear_where_tls_is_asked_for(
    level: bytes, script: Script, want: bytes
) -> None:
    with running(files=policy(b":" + level)) as process, Peer(script) as peer:
        (text,) = process.outcome(MESSAGE, port=peer.port)
    assert text == b"ZConnected to 127.0.0.1 but " + want
    assert b"MAIL" not in commands(peer)


def test_none_does_not_ask_for_tls(server: ssl.SSLContext) -> None:
    with running(files=policy(b":none")) as process, Peer(SECURE, tls=server) as peer:
        assert process.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
    assert commands(peer) == [b"EHLO", *ENVELOPE]


def verifying(line: bytes, authority: Authority) -> Mapping[str, bytes]:
    return policy(line, tlscafile=authority.pem)


@pytest.mark.parametrize(
    ("line", "relay"),
    [
        (b"127.0.0.1:verify", b"127.0.0.1"),
        (b"localhost:verify:mx.example.org", b"localhost"),
        (b":verify:other.example,.example.org", b"127.0.0.1"),
    ],
)
def test_verified_peer_gets_the_mail(
    line: bytes, relay: bytes, authority: Authority, server: ssl.SSLContext
) -> None:
    script = SECURE | {"DOT": [b"421 again please", b"250 ok"]}
    with (
        running(files=verifying(line, authority)) as process,
        Peer(script, tls=server) as peer,
    ):
        process.outcome(MESSAGE, port=peer.port, relay=relay)
        (text,) = process.outcome(MESSAGE, port=peer.port, relay=relay)
        assert text.startswith(IN_CLEAR)
        assert text.endswith(b" mx.example.org verified resumed\n")


def test_certificate_that_is_not_good_is_a_deferral_with_the_reason(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    good = authority.certify("DNS:mx.example.org")
    expired = authority.certify("IP:127.0.0.1", days=-1)
    nameless = authority.certify(common="127.0.0.1")
    cases = [
        (stranger.certify("IP:127.0.0.1"), b"unable to get local issuer certificate"),
        (expired, b"certificate has expired"),
        (good, b"certificate of mx.example.org, not of 127.0.0.1"),
        (nameless, b"certificate of 127.0.0.1, not of 127.0.0.1"),
    ]
    with running(files=verifying(b":verify", authority)) as process:
        for pem, want in cases:
            with Peer(SECURE, tls=server_context(pem)) as peer:
                (report,) = process.reports(process.deliver(MESSAGE, port=peer.port))
                assert want in report.text
                assert report.text.endswith(b". (#4.7.5)\n")
                assert report.letter is Letter.DEFERRAL
                assert (len(peer.served), peer.contents) == (1, [])


def test_system_authorities_verify_where_no_file_is_given(
    server: ssl.SSLContext,
) -> None:
    with running(files=policy(b":verify")) as process, Peer(SECURE, tls=server) as peer:
        (text,) = process.outcome(MESSAGE, port=peer.port)
    assert b"TLS failed: certificate not accepted: unable to get local issuer" in text


def test_old_keys_are_better_than_none_under_may_only(authority: Authority) -> None:
    small = authority.certify("IP:127.0.0.1", key="1024")
    context = server_context(small, is_weak=True)
    files = policy(b"localhost:encrypt")
    with running(files=files) as process, Peer(SECURE, tls=context) as peer:
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert b"TLSv1.2 DHE-RSA-AES128-GCM-SHA256 " in text
        (text,) = process.outcome(MESSAGE, port=peer.port, relay=b"localhost")
        assert text.startswith(b"ZConnected to 127.0.0.1 but TLS failed: dh key too")


def test_client_certificate_is_shown_to_who_asks(
    authority: Authority, certificate: bytes
) -> None:
    ours = authority.certify("DNS:me.example", common="me.example")
    context = server_context(certificate, authority.pem)
    with (
        running(files={"clientcert.pem": ours}) as process,
        Peer(SECURE, tls=context) as peer,
    ):
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert text.startswith(IN_CLEAR)
        assert b"TLSv1.3" in text
        assert peer.served[0].client_cert["subject"] == (
            (("commonName", "me.example"),),
        )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_server_that_wants_a_certificate_we_have_not_gets_mail_in_clear(
    shared: RemoteProcess,
    authority: Authority,
    certificate: bytes,
    version: ssl.TLSVersion,
) -> None:
    # With TLS 1.3 it says so only when our side of the handshake is done.
    context = server_context(certificate, authority.pem)
    context.maximum_version = version
    with Peer(SECURE, tls=context) as peer:
        assert shared.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
        assert len(peer.served) == 2


OFFER_AUTH = [OFFER, b"250-peer\r\n250 AUTH LOGIN PLAIN"]
WITH_AUTH = SECURE | {"EHLO": OFFER_AUTH, "AUTH": b"235 welcome"}
AUTH_FILE = {"smtpauth": b"# ours\n127.0.0.1:ann:pa:ss\nother.example:x:y\n"}


def test_relay_is_logged_in_to_over_tls(server: ssl.SSLContext) -> None:
    with running(files=AUTH_FILE) as process, Peer(WITH_AUTH, tls=server) as peer:
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert text.startswith(IN_CLEAR)
    assert peer.commands[3] == b"AUTH PLAIN AGFubgBwYTpzcw=="


def test_login_mechanism(server: ssl.SSLContext) -> None:
    script = WITH_AUTH | {
        "EHLO": [OFFER, b"250-peer\r\n250 AUTH LOGIN"],
        "AUTH": [b"334 VXNlcm5hbWU6", b"334 UGFzc3dvcmQ6", b"235 ok"],
    }
    with running(files=AUTH_FILE) as process, Peer(script, tls=server) as peer:
        assert process.outcome(MESSAGE, port=peer.port)[0].startswith(b"K")
    assert peer.commands[3:6] == [b"AUTH LOGIN", b"YW5u", b"cGE6c3M="]


def test_login_that_is_refused_is_a_deferral(server: ssl.SSLContext) -> None:
    script = WITH_AUTH | {"AUTH": b"535 wrong"}
    with running(files=AUTH_FILE) as process, Peer(script, tls=server) as peer:
        (text,) = process.outcome(MESSAGE, port=peer.port)
    assert text == (
        b"ZConnected to 127.0.0.1 but my login was refused.\n"
        b"Remote host said: 535 wrong\n"
    )


@pytest.mark.parametrize("script", [PIPELINED, SECURE | {"TLS": Odd.CLOSE}])
def test_password_never_goes_out_in_clear_under_may(script: Script) -> None:
    offer = b"250-peer\r\n250-AUTH PLAIN\r\n250 STARTTLS"
    if script is PIPELINED:
        offer = b"250-peer\r\n250 AUTH PLAIN"
    with running(files=AUTH_FILE) as process, Peer({**script, "EHLO": offer}) as peer:
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert text.startswith(b"Z")
        assert len(peer.served) == 1
    assert b"AUTH" not in commands(peer)


def test_password_goes_out_in_clear_where_the_operator_says_none() -> None:
    script = PIPELINED | {"EHLO": b"250-peer\r\n250 AUTH PLAIN", "AUTH": b"235 ok"}
    files = {**AUTH_FILE, "tlspolicy": b"127.0.0.1:none\n"}
    with running(files=files) as process, Peer(script) as peer:
        assert process.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]


def test_other_destinations_do_not_feel_a_hanging_handshake(
    shared: RemoteProcess, server: ssl.SSLContext
) -> None:
    with (
        Peer(SECURE | {"TLS": Odd.SILENCE}) as stuck,
        Peer(SECURE, tls=server) as good,
        Peer(PIPELINED) as plain,
    ):
        shared.deliver(MESSAGE, port=stuck.port)
        stuck.wait_served(1)
        for peer in (good, plain):
            assert shared.outcome(MESSAGE, port=peer.port)[0].startswith(IN_CLEAR)
        assert len(stuck.served) == 1


def test_next_host_is_tried_when_one_has_no_tls(server: ssl.SSLContext) -> None:
    with (
        running(files=policy(b":encrypt")) as process,
        Peer(PIPELINED) as bad,
        Peer(SECURE, host="::1", port=bad.port, tls=server) as good,
    ):
        (text,) = process.outcome(MESSAGE, port=good.port, relay=b"localhost")
        assert len(bad.served) == 1
    assert text.startswith(b"K::1 accepted message.\n")


def test_new_policy_holds_for_the_next_message(server: ssl.SSLContext) -> None:
    with running() as process, Peer(SECURE, tls=server) as peer:
        process.reload({"me": b"me.example\n", "tlspolicy": b":none\n"})
        assert process.outcome(MESSAGE, port=peer.port) == [IN_CLEAR]
        process.reload({"me": b"me.example\n", "tlspolicy": b":encrypt\n"}, 3)
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert b" unverified\n" in text
        process.reload({"me": b"me.example\n", "tlspolicy": b":maybe\n"}, 4)
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert b" unverified\n" in text


def test_new_certificate_is_loaded_by_the_confined_process(
    authority: Authority, certificate: bytes
) -> None:
    ours = authority.certify("DNS:me.example", common="me.example")
    context = server_context(certificate, authority.pem)
    with running() as process, Peer(SECURE, tls=context) as peer:
        files = {
            "me": b"me.example\n",
            "clientcert.pem": ours,
            "tlscafile": authority.pem,
        }
        process.reload({**files, "tlspolicy": b":verify\n"})
        (text,) = process.outcome(MESSAGE, port=peer.port)
        assert b" verified\n" in text
        assert peer.served[0].client_cert
