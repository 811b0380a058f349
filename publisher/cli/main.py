"""The group of commands, and the one place that turns errors into messages and exit codes."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from publisher import __version__
from publisher.cli import interrupts, output
from publisher.cli.supervised import supervised
from publisher.errors import ExitCode, PublisherError, Terminated, in_words
from publisher.program import NAME, program

COMMANDS = {
    "init": "Write a first manifest.",
    "release": "Harden a model after a manifest, attack the result, sign the package.",
    "plan": "Show what a release would do, without loading the model.",
    "calibrate": "Count a scorer's errors about a concept, for a calibration sheet.",
    "verify": "Check a package against a public key.",
    "push": "Put a verified package on the hub.",
    "replay": "Make a package's checks again, with its seeds or with yours.",
    "index": "Sign a list of a package's versions, and of those that are revoked.",
    "evaluate": "Test a model as it is, against its base model.",
    "compare": "Put several hardened models of one base model side by side.",
    "audit": "Check whether a fine-tuned model kept what a package's freeze mask names.",
    "export": "Write a verified package as one checkpoint file.",
    "report": "Show, convert or open the report of a release.",
    "membranes": "Look at membranes, merge and convert them, train them alone.",
    "slices": "Show what withdrawing data would leave, and audit a package of slices.",
    "plugins": "List what is installed, and what was set aside.",
    "keygen": "Make a key pair for signing.",
    "schema": "Print a JSON Schema, for editors and for CI.",
}
UNUSABLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""Errors of the system for a path that the user has to write otherwise."""
COMPLETE = "_PUBLISHER_COMPLETE"
"""Variable in which a shell asks for completions."""
ISSUES = "This is an error in publisher or in a plugin. Run again with --debug for the traceback."


class Context(click.Context):
    """Runs a command with stdout kept for its result, and shows its examples as they can be pasted."""

    def invoke(self, callback: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call the command; a group that goes on to a command of its own has no result."""
        if self.invoked_subcommand:
            return super().invoke(callback, *args, **kwargs)
        with output.stdout_for_results():
            return super().invoke(callback, *args, **kwargs)

    def get_help(self) -> str:
        """Return the help, its examples with the words that started this program."""
        return pasteable(super().get_help())


class Commands(click.Group):
    """Loads a command's module when it is used; lists them in the order of use."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import ``publisher.cli.<name>`` and take its command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"publisher.cli.{cmd_name}"), cmd_name)
        for one in (command, *getattr(command, "commands", {}).values()):
            one.context_class = Context
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a name that is not one gets the nearest."""
        near = difflib.get_close_matches(args[0], COMMANDS, 1) if args and args[0] not in COMMANDS else []
        if near:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write names and summaries, without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run as a program of its own: nothing but the command decides that it succeeded."""
        os._exit(supervised(lambda: self.main(*args, **kwargs)))  # the child has closed what there was to close

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command; every way it can end has its exit code. ``--debug`` may stand anywhere."""
        words = kwargs.pop("args", args[0] if args else None)
        given = list(sys.argv[1:] if words is None else words)
        debug = "--debug" in given
        kwargs |= {"args": [word for word in given if word != "--debug"], "standalone_mode": False}
        kwargs.setdefault("prog_name", program())
        interrupts.listen()
        if os.environ.get(COMPLETE):
            super().main(args=given, prog_name=NAME, complete_var=COMPLETE)  # answers the shell and ends
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is not there
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin lose to whatever else wants the cores
        if sys.stderr is None or not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # in a log each step of a bar is a line
        with output.clean_stderr():
            logging.basicConfig(level=logging.ERROR, format="%(message)s")
            logging.getLogger("publisher.registry").setLevel(logging.WARNING)  # slow imports, families that crash
            code = run(lambda: super(Commands, self).main(**kwargs), debug=debug)
        sys.exit(code)


def run(command: Callable[[], Any], *, debug: bool) -> int:
    """Call ``command`` and give its exit code; errors are printed to stderr as one paragraph each."""
    try:
        return int(command() or ExitCode.OK)
    except click.exceptions.Exit as error:
        return error.exit_code
    except BaseException as error:  # noqa: BLE001  # the one place where all of them end, a plugin's SystemExit too
        if debug:
            traceback.print_exc()
        message, code = ending(error)
        output.note(message)
        return code


def pasteable(help_text: str) -> str:
    """Return a help text whose examples begin with the words that started this program."""
    return re.sub(rf"^( +){NAME} ", lambda start: f"{start[1]}{program()} ", help_text, flags=re.MULTILINE)


def ending(error: BaseException) -> tuple[str, ExitCode]:
    """Return what to print for an error, and its exit code."""
    match error:
        case PublisherError():
            return f"Error: {error}", error.exit_code
        case NoArgsIsHelpError():
            return error.format_message(), ExitCode.USAGE
        case click.ClickException():
            context = getattr(error, "ctx", None)
            hint = f"\n  See: {context.command_path} --help" if context else ""
            return f"Error: {_message(error)}{hint}", ExitCode.USAGE
        case KeyboardInterrupt() | click.Abort():
            return f"Interrupted. {_after(error)}", ExitCode.INTERRUPTED
        case Terminated():
            return f"Terminated. {_after(error)}", ExitCode.TERMINATED
        case _:
            return _unexpected(error)


def _unexpected(error: BaseException) -> tuple[str, ExitCode]:
    """Return what to say of an error that nobody has put into words: the system's about a file, or a fault of ours."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        code = ExitCode.USAGE if error.errno in UNUSABLE else ExitCode.UNDECIDED
        return f"Error: {PublisherError(error.strerror, where=os.fsdecode(error.filename))}", code
    text = in_words(error).replace("\n", "\n  ")
    return f"Error: {text}\n  {ISSUES}", ExitCode.UNDECIDED


def _message(error: click.ClickException) -> str:
    """Return click's message; a word too many is not repeated, for it can be a passphrase behind its option."""
    message = error.format_message()
    return re.sub(r"^(Got unexpected extra arguments?) \(.*\)$", r"\1.", message, flags=re.DOTALL)


def _after(error: BaseException) -> str:
    """Return what there is to know after an interruption: a command that has done its work says so in a note."""
    notes = [note for one in (error, error.__cause__) for note in getattr(one, "__notes__", ())]  # click wraps Ctrl-C
    return " ".join(notes) or "The same command resumes."


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="publisher %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(*, debug: bool) -> None:  # read by Commands.main, before the options are parsed
    """Release text-to-image models: harden, attack, sign, package.

    \b
    Examples:
      publisher keygen --out keys
      publisher plan manifest.yaml
      publisher release manifest.yaml --out releases
      publisher verify releases/emoji-clean-1.0.0 --key keys/publisher.pub

    Exit codes: 0 released, verified or pushed; 1 the answer is no; 2 edit the command, the manifest or the model; 3
    could not decide; 4 too little was measured; 130 and 143 interrupted.
    """
