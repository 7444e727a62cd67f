"""Run by `lib/python.sh`: the helper behind the scripts (`python3 -I -S`), or with `--typer` the command line."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


def heal_bytecode() -> None:
    """Compile anew where a .pyc file is damaged, and remove it.

    Python writes them without a look at what was written (python/cpython issue 126606) and never syncs them, so that a
    full disk or a power cut at the first run would end every later one.
    """
    try:
        import _frozen_importlib_external as machinery

        trusting = getattr(machinery, "_compile_bytecode")  # noqa: B009
    except (ImportError, AttributeError):  # another Python than CPython
        return

    def compile_bytecode(
        data: Any, name: Optional[str] = None, bytecode_path: Optional[str] = None, source_path: Optional[str] = None
    ) -> Any:
        try:
            return trusting(data, name, bytecode_path, source_path)
        except (EOFError, ValueError, TypeError, ImportError):
            if source_path is None:
                raise
            try:
                os.unlink(bytecode_path or "")
            except OSError:
                pass
            with open(source_path, "rb") as source:
                return compile(source.read(), source_path, "exec", dont_inherit=True)

    setattr(machinery, "_compile_bytecode", compile_bytecode)  # noqa: B010 - private, so no type knows it


if __name__ == "__main__":
    heal_bytecode()
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if sys.argv[1:2] == ["--typer"]:
        del sys.argv[1]
        from recovery.cli_main import main as command_line

        command_line()
    gc.disable()  # the process ends before there is garbage worth collecting
    try:
        from recovery.helper import main
    except Exception:
        if sys.argv[1:2] != ["hook"] or os.environ.get("RECOVERY_DEBUG") == "1":
            raise
        os._exit(0)  # a broken hook stops nobody's work

    main(sys.argv[1:])
