package pgcluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for _, test := range []struct {
		line    string
		major   int
		version string
	}{
		{"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15, "15.18 (Debian 15.18-0+deb12u1)"},
		{"postgres (PostgreSQL) 19devel\n", 19, "19devel"},
		{"postgres (PostgreSQL) 14\n", 14, "14"},
		{"postgres (PostgreSQL) 9.6.24\n", 0, ""}, // too old
		{"postgres (PostgreSQL) \n", 0, ""},
		{"postgres (EnterpriseDB) 15\n", 0, ""},
		{"", 0, ""},
	} {
		b, err := parseVersion("/bin", test.line)
		if b.Major != test.major || b.Version != test.version || (err == nil) != (test.major != 0) {
			t.Errorf("%q: %+v, %v", test.line, b, err)
		}
	}
}

func TestFindBinariesRefuses(t *testing.T) {
	empty := t.TempDir()
	for dir, want := range map[string]string{empty: "it holds no initdb", empty + "/nowhere": "no such folder"} {
		t.Setenv(BinDirVariable, dir)
		_, err := FindBinaries()
		if !errors.Is(err, ErrNoPostgres) || !strings.Contains(err.Error(), BinDirVariable+" is "+dir+": "+want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestReplaceControlID(t *testing.T) {
	// A made-up pg_control: identifier, some fields, checksum, padding.
	table := crc32.MakeTable(crc32.Castagnoli)
	control := make([]byte, 512)
	binary.NativeEndian.PutUint64(control, 7)
	copy(control[8:], "fields of some version...")
	binary.NativeEndian.PutUint32(control[288:], crc32.Checksum(control[:288], table))
	broken := bytes.Clone(control)
	broken[20]++

	old, err := replaceControlID(control, 9)
	if err != nil || old != 7 {
		t.Fatalf("old identifier %d, %v; want 7", old, err)
	}
	if binary.NativeEndian.Uint64(control) != 9 || binary.NativeEndian.Uint32(control[288:]) != crc32.Checksum(control[:288], table) {
		t.Error("identifier or checksum not as wanted")
	}
	if _, err := replaceControlID(broken, 9); err == nil {
		t.Error("a broken pg_control was accepted")
	}
	if _, err := replaceControlID(nil, 9); err == nil {
		t.Error("an empty pg_control was accepted")
	}
}

func TestReplaceWALID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "000000010000000000000001")
	write := func(id uint64) {
		page := make([]byte, 64)
		binary.NativeEndian.PutUint64(page[walSystemIDOffset:], id)
		must(t, os.WriteFile(path, page, 0o600))
	}
	read := func() uint64 {
		page, err := os.ReadFile(path)
		must(t, err)
		return binary.NativeEndian.Uint64(page[walSystemIDOffset:])
	}
	write(7)
	if err := replaceWALID(path, 7, 9); err != nil || read() != 9 {
		t.Errorf("identifier %d, %v; want 9", read(), err)
	}
	write(0) // a segment made in advance
	if err := replaceWALID(path, 7, 9); err != nil || read() != 0 {
		t.Errorf("identifier %d, %v; want 0", read(), err)
	}
	write(8)
	if err := replaceWALID(path, 7, 9); err == nil || read() != 8 {
		t.Errorf("a foreign segment was changed to %d, %v", read(), err)
	}
}

func TestReservePort(t *testing.T) {
	a, err := serverAccount()
	must(t, err)
	base, err := a.baseDir("")
	must(t, err)
	seen := map[int]bool{}
	for range 50 {
		lock, err := reservePort(base, a)
		must(t, err)
		defer lock.release()
		if seen[lock.port] {
			t.Errorf("port %d was given twice", lock.port)
		}
		seen[lock.port] = true
	}
}

func TestBaseDirRefusesAStrangersFolder(t *testing.T) {
	a, err := serverAccount()
	must(t, err)
	parent := t.TempDir()
	base, err := a.baseDir(parent)
	must(t, err)
	must(t, os.Chmod(base, 0o777))
	if _, err := a.baseDir(parent); err == nil {
		t.Error("a folder open to all was accepted")
	}
	must(t, os.RemoveAll(base))
	must(t, os.Symlink(parent, base))
	if _, err := a.baseDir(parent); err == nil {
		t.Error("a symbolic link was accepted")
	}
}

// TestOwnFolder: it is where the servers' account can use it.
func TestOwnFolder(t *testing.T) {
	a, err := serverAccount()
	must(t, err)
	closed := filepath.Join(t.TempDir(), "closed")
	must(t, os.Mkdir(closed, 0o700))
	long := filepath.Join("/tmp", strings.Repeat("long", 15))
	must(t, os.MkdirAll(long, 0o755))
	defer os.Remove(long)
	for temp, want := range map[string]string{
		"/tmp": "/tmp/demo-", long: "/tmp/demo-", closed: map[bool]string{true: "/tmp/demo-", false: closed}[a.drop],
	} {
		t.Setenv("TMPDIR", temp)
		dir, err := OwnFolder("demo-")
		must(t, err)
		defer os.Remove(dir)
		if !strings.HasPrefix(dir, want) && len(closed) < maxOwnFolder {
			t.Errorf("in %s: %s, want %s...", temp, dir, want)
		}
		if out, err := a.command(dir, "/bin/sh", "-c", "touch a && rm a").CombinedOutput(); err != nil {
			t.Errorf("the account cannot use %s: %v %s", dir, err, out)
		}
	}
}

func TestQuote(t *testing.T) {
	if got := quote(`it's a \ path`); got != `'it''s a \\ path'` {
		t.Errorf("quoted as %s", got)
	}
}

func TestPathVersion(t *testing.T) {
	if pathVersion("/usr/lib/postgresql/9.6/bin") >= pathVersion("/usr/lib/postgresql/15/bin") {
		t.Error("9.6 sorts above 15")
	}
}
