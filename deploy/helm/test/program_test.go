package helmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// checkFile has the program judge a configuration.
func checkFile(t *testing.T, text string) {
	t.Helper()
	program := os.Getenv("SHARDPROXY_BIN")
	if program == "" {
		program = "../../../bin/shardproxy"
	}
	path := filepath.Join(t.TempDir(), "shardproxy.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, "check", "--strict", "-c", path).CombinedOutput(); err != nil {
		t.Errorf("%v: %s\n%s", err, out, text)
	}
}
