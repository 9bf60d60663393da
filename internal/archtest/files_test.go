package archtest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// committed lists what git keeps; without .git, as in a source archive, all
// that lies there but what a build makes.
func committed(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		var all []string
		err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && (entry.Name() == "bin" || entry.Name() == "node_modules") {
				return filepath.SkipDir
			}
			if err == nil && entry.Type().IsRegular() {
				name, _ := filepath.Rel(root, path) // both begin with root
				all = append(all, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	// The folder may belong to another user than the one that tests.
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// TestCommittedFiles keeps programs, dumps and archives out of the repository.
func TestCommittedFiles(t *testing.T) {
	names := committed(t)
	for _, name := range names {
		f, err := os.Open(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // about to be removed
		} else if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(io.LimitReader(f, maxFileBytes))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		for _, bad := range JudgeFile(name, info.Size(), content) {
			t.Error(bad)
		}
	}
	if len(names) < 100 {
		t.Errorf("saw %d files only", len(names))
	}
}

// TestFileOffences shows that the rules see what they are there for.
func TestFileOffences(t *testing.T) {
	for _, test := range []struct {
		path    string
		size    int64
		content string
		want    string
	}{
		{"a.go", 10, "package x\n", ""},
		{"schema.sql", maxFileBytes, "-- x\n", ""},
		{"dump.sql", maxFileBytes + 1, "-- x\n", "256"},
		{"shardproxy", 1000, "\x7fELF\x02\x01\x01\x00", "binary"},
		{strings.Repeat("x/", 101), 1, "x", "path of 202 bytes"},
	} {
		expect(t, test.path, JudgeFile(test.path, test.size, []byte(test.content)), test.want)
	}
}
