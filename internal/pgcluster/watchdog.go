package pgcluster

import (
	"fmt"
	"os"
	"os/exec"
)

// watchdogScript waits until its standard input ends, which happens when the
// process that started it dies in whatever way. Then it kills every process
// that works in one of the folders given (PostgreSQL's processes all have
// their data directory as working directory, stopped ones too) and removes the
// folders. Where there is no /proc it goes by the pid files.
const watchdogScript = `
read -r line
[ "$line" = done ] && exit 0
processes() {
	if [ -e /proc/self/cwd ]; then
		for p in /proc/[0-9]*; do
			cwd=$(readlink "$p/cwd" 2>/dev/null) || continue
			case "$cwd/" in "$1"/*) echo "${p#/proc/}";; esac
		done
	else
		for f in "$1"/postmaster.pid "$1"/*/postmaster.pid; do
			[ -e "$f" ] && head -n 1 "$f" && pgrep -P "$(head -n 1 "$f")"
		done
	fi
}
for dir in "$@"; do
	segments=$(for f in "$dir"/postmaster.pid "$dir"/*/postmaster.pid; do
		[ -e "$f" ] && sed -n '7s/.* //p' "$f"
	done)
	for try in 1 2 3 4 5 6 7 8 9 10; do
		pids=$(processes "$dir")
		[ -z "$pids" ] && break
		kill -9 $pids 2>/dev/null
	done
	for id in $segments; do ipcrm -m "$id" 2>/dev/null; done
	rm -rf "$dir"
done
`

// watchdog is the process that cleans up when this one dies.
type watchdog struct {
	cmd   *exec.Cmd
	stdin *os.File // kept open by this process alone
}

// startWatchdog starts one for the folders given. It works in none of them: it
// would end itself.
func startWatchdog(a account, dirs ...string) (*watchdog, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	defer read.Close()
	cmd := a.command("/", "/bin/sh", append([]string{"-c", watchdogScript, "shardproxy-pg-watchdog"}, dirs...)...)
	cmd.Stdin = read
	if err := cmd.Start(); err != nil {
		write.Close()
		return nil, fmt.Errorf("start watchdog: %w", err)
	}
	return &watchdog{cmd: cmd, stdin: write}, nil
}

// dismiss ends the watchdog without a clean-up.
func (w *watchdog) dismiss() {
	// Errors mean that it is gone already, which is what is wanted.
	_, _ = w.stdin.WriteString("done\n")
	w.stdin.Close()
	_ = w.cmd.Wait()
}
