"""Commands of gdb that know Marcona: its threads, spaces, processors and programs.

`cargo xtask gdb` loads this file and says by the environment where everything is. What there is to be seen in the kernel's
tables is shown by the commands of the kernel debugger, which look at a dump of the memory (`cargo xtask dump`): `l4`
followed by one of them. What gdb knows best, registers, sources and stacks, it shows itself, for any thread: `l4-thread`.
"""

import os
import shutil
import subprocess
import tempfile

import gdb

TOOL = os.environ["MARCONA_TOOL"]
KERNEL = os.environ["MARCONA_KERNEL"]
PROGRAMS = [name for name in os.environ.get("MARCONA_PROGRAMS", "").split(":") if name]
CONSOLE = os.environ.get("MARCONA_CONSOLE")

# Programs are below; above, they execute the stubs of system calls alone.
STUBS = 1 << 63
# QEMU's number of the register, on x86-64.
CR3 = 29
REGISTERS = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags".split()


def read_dump(arguments):
    """What the tool says of the memory as it is now."""
    folder = tempfile.mkdtemp()
    try:
        dump = os.path.join(folder, "memory")
        said = gdb.execute(f"monitor dump-guest-memory {dump}", to_string=True)
        if not os.path.exists(dump):
            raise gdb.GdbError(f"QEMU writes no dump: {said.strip()}")
        command = [TOOL, "dump", dump, "--kernel", KERNEL, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise gdb.GdbError(done.stderr.strip() or done.stdout.strip())
        return done.stdout
    finally:
        shutil.rmtree(folder)


class Look(gdb.Command):
    """l4 COMMAND: a command of the kernel debugger, as in `l4 threads`, `l4 waits`, `l4 mdb space client`, `l4 help`."""

    def __init__(self):
        super().__init__("l4", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        gdb.write(read_dump([argument or "help"]))


class Processors(gdb.Command):
    """l4-cpus: where each processor is, and for which thread."""

    def __init__(self):
        super().__init__("l4-cpus", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        gdb.write(read_dump(["showqueue"]))
        gdb.execute("info threads")


class Thread(gdb.Command):
    """l4-thread THREAD: makes the saved registers and the space of a thread, by number, id or name, those that gdb sees.

    Its program's symbols are there already. Nothing may run before `l4-back` has put back what was there."""

    kept = None

    def __init__(self):
        super().__init__("l4-thread", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("name a thread, by number, id or name")
        lines = read_dump(["--registers", argument]).split()
        values = dict(line.split("=", 1) for line in lines)
        if Thread.kept is None:
            Thread.kept = {name: register(name) for name in [*REGISTERS, "cr3"]}
        for name in ["cr3", *REGISTERS]:
            set_register(name, int(values[name], 16))
        gdb.execute("maintenance flush register-cache", to_string=True)
        gdb.execute("frame")
        if int(values["rip"], 16) >= STUBS:
            gdb.write("in the kernel's stub of a system call, called from:\n")
            gdb.execute("x/a $rsp")


class Back(gdb.Command):
    """l4-back: the registers of the processor are its own again."""

    def __init__(self):
        super().__init__("l4-back", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if Thread.kept is None:
            raise gdb.GdbError("the registers are the processor's own")
        for name in ["cr3", *REGISTERS]:
            set_register(name, Thread.kept[name])
        Thread.kept = None
        gdb.execute("maintenance flush register-cache", to_string=True)


class Console(gdb.Command):
    """l4-console: what the machine has printed."""

    def __init__(self):
        super().__init__("l4-console", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        with open(CONSOLE, errors="replace") as text:
            gdb.write(text.read())


def register(name):
    # Flags and control registers are of types that cannot be made numbers.
    return int(gdb.execute(f"info registers {name}", to_string=True).split()[1], 0)


def set_register(name, value):
    if name == "cr3":
        # gdb takes no value for a register of that type; the emulator does, by its own number of it.
        number = value.to_bytes(8, "little").hex()
        gdb.execute(f"maintenance packet P{CR3:x}={number}", to_string=True)
    else:
        gdb.execute(f"set ${name} = {value:#x}", to_string=True)


def must_not_run(event):
    """Whoever goes on with the registers of another thread would end both."""
    if Thread.kept is not None:
        gdb.write("the processor went on with the registers of another thread: l4-back comes first\n")
        Thread.kept = None


for command in [Look, Processors, Thread, Back, Console]:
    command()
gdb.events.cont.connect(must_not_run)
gdb.execute("set pagination off")
gdb.execute("set confirm off")
for program in PROGRAMS:
    gdb.execute(f"add-symbol-file {program}", to_string=True)
gdb.write("l4, l4-cpus, l4-thread, l4-back, l4-console: see help l4\n")
