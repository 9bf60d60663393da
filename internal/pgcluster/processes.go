package pgcluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// serverProcesses lists the postmaster and all its children, the postmaster
// first. Each backend leads a session of its own, so a signal to the
// postmaster's process group would not reach them; what they share is the
// working directory.
func serverProcesses(dataDir string, postmaster int) []int {
	pids := []int{postmaster}
	entries, err := os.ReadDir("/proc")
	if err != nil || len(entries) == 0 {
		return append(pids, children(postmaster)...)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == postmaster {
			continue
		}
		if cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); err == nil && cwd == dataDir {
			pids = append(pids, pid)
		}
	}
	return pids
}

// children is serverProcesses' way where there is no /proc.
func children(pid int) []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil { // also when there are none
		return nil
	}
	var pids []int
	for _, field := range bytes.Fields(out) {
		if n, err := strconv.Atoi(string(field)); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// isStopped reports whether a process is stopped by SIGSTOP or gone.
func isStopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	// The program's name stands in parentheses and may hold anything.
	_, after, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')'):]), " ")
	return strings.HasPrefix(after, "T") || strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

// exited reaps a child and reports whether it has ended.
func exited(pid int) bool {
	var status syscall.WaitStatus
	for {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		return err != nil || got == pid
	}
}
