"""How the command ends: the exit codes, what each means, and the failure that carries one."""

from __future__ import annotations

from enum import IntEnum

from methodhub.core.errors import MEANINGS, ErrorCode


class ExitCode(IntEnum):
    """Part of the command's interface: a number never changes its meaning."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    REFUSED = 5
    NO_HUB = 6
    NOT_REACHED = 7
    PARTLY = 8
    INTERRUPTED = 130


EXIT_MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "Done. For `invoke`: the device answered, whatever status it gave.",
    ExitCode.UNEXPECTED: "Something failed that should not; please report it.",
    ExitCode.USAGE: "The command line, a setting, or a payload is wrong. Nothing was changed.",
    ExitCode.NOT_FOUND: "There is no such device, module, job, policy or CA certificate. A disabled device counts as "
    "absent for `invoke`.",
    ExitCode.CONFLICT: "It exists already, or someone else changed it meanwhile.",
    ExitCode.REFUSED: "The hub refused the request, or failed at it.",
    ExitCode.NO_HUB: "No hub is running, it cannot start, it is stopping, or its data cannot be opened.",
    ExitCode.NOT_REACHED: "The device was not reached, or gave no valid answer in time.",
    ExitCode.PARTLY: "Done in part: a job ended without success on every device, or the hub refused some identities "
    "of an import. What succeeded stays.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C.",
}

_EXIT_OF: dict[ErrorCode, ExitCode] = {
    ErrorCode.DeviceNotFound: ExitCode.NOT_FOUND,
    ErrorCode.ModuleNotFound: ExitCode.NOT_FOUND,
    ErrorCode.GenericNotFound: ExitCode.NOT_FOUND,
    ErrorCode.JobNotFound: ExitCode.NOT_FOUND,
    ErrorCode.GenericConflict: ExitCode.CONFLICT,
    ErrorCode.DeviceAlreadyExists: ExitCode.CONFLICT,
    ErrorCode.ModuleAlreadyExistsOnDevice: ExitCode.CONFLICT,
    ErrorCode.JobAlreadyExists: ExitCode.CONFLICT,
    ErrorCode.PreconditionFailed: ExitCode.CONFLICT,
    ErrorCode.ServiceUnavailable: ExitCode.NO_HUB,
    ErrorCode.ConnectionUnavailable: ExitCode.NO_HUB,
    ErrorCode.DeviceNotOnline: ExitCode.NOT_REACHED,
    ErrorCode.DeviceConnectionClosedRemotely: ExitCode.NOT_REACHED,
    ErrorCode.ConnectionForcefullyClosedOnNewConnection: ExitCode.NOT_REACHED,
    ErrorCode.InvalidDeviceResponse: ExitCode.NOT_REACHED,
    ErrorCode.GatewayTimeout: ExitCode.NOT_REACHED,
}


class Failure(Exception):
    """The verb ends here. `message` is complete for the user; `code` is the hub's, where the hub said no."""

    def __init__(self, exit_code: ExitCode, message: str, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.code = code

    def as_text(self) -> str:
        if self.code is None:
            return self.message
        # A message may end with an address, to which no full stop may stick.
        joint = " " if self.message.endswith((".", "!", "?")) else " - "
        return f"{int(self.code)} {self.code.name}: {self.message}{joint}{MEANINGS[self.code]}"

    def as_json(self) -> dict[str, object]:
        error: dict[str, object] = {"exitCode": int(self.exit_code), "message": self.message}
        if self.code is not None:
            error |= {"code": int(self.code), "name": self.code.name, "meaning": MEANINGS[self.code]}
        return {"error": error}


def refused(code: ErrorCode, message: str) -> Failure:
    """The failure for an error that the hub answered with."""
    return Failure(_EXIT_OF.get(code, ExitCode.REFUSED), message, code)
