package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMan makes the manual pages, and the completions that the command line offers.
func TestMan(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "man1")
	if o := call(t, "", "man", dir); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	for _, name := range []string{"shardproxy.1", "shardproxy-run.1", "shardproxy-rebalance-start.1", "shardproxy-import-pgbouncer.1"} {
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(page), ".SH NAME") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if o := call(t, "", "completion", shell); o.code != 0 || !strings.Contains(o.out, "shardproxy") {
			t.Errorf("%s: %+v", shell, o)
		}
	}
}
