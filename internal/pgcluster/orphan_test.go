package pgcluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// orphanVariable makes the test binary start a cluster, say where, and wait to
// be killed.
const orphanVariable = "PGCLUSTER_TEST_ORPHAN"

func beOrphan() {
	o := Options{Replicas: 1}
	if os.Getenv(orphanVariable) == "own" {
		dir, err := OwnFolder("orphan-")
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		o.Parent, o.OwnParent = dir, true
	}
	c := New(o)
	if err := c.Open(context.Background()); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	if err := c.Replicas()[0].Pause(); err != nil { // stopped processes must die too
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(c.Dir())
	select {}
}

// TestOrphans: the servers die with the process that made them.
func TestOrphans(t *testing.T) {
	t.Run("shared parent", func(t *testing.T) { testOrphans(t, "1") })
	t.Run("own parent", func(t *testing.T) { testOrphans(t, "own") })
}

func testOrphans(t *testing.T, how string) {
	program, err := os.Executable()
	must(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), orphanVariable+"="+how)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	dir := strings.TrimSpace(line)
	if err != nil || !strings.HasPrefix(dir, "/") {
		t.Errorf("the other process said %q (%v)", dir, err)
	}
	pids := append(serverProcesses(dir+"/primary", 0)[1:], serverProcesses(dir+"/replica1", 0)[1:]...)
	if len(pids) < 4 {
		t.Errorf("processes %v only before the kill", pids)
	}
	leaves := dir
	if how == "own" {
		leaves = filepath.Dir(dir)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err = poll(ctx, func() (bool, error) {
		_, err := os.Stat(leaves)
		return errors.Is(err, os.ErrNotExist), nil
	})
	if err != nil {
		t.Errorf("the folder %s is left: %v", leaves, err)
	}
	for _, pid := range pids {
		// Not by its working directory, which is gone by now.
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(command), "postgres") {
			t.Errorf("process %d is left: %s", pid, command)
		}
	}
}
