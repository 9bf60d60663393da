package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNoPostgres is wrapped by the error of FindBinaries when this machine has
// no usable PostgreSQL server.
var ErrNoPostgres = errors.New("PostgreSQL server programs not found")

// minimumMajor is the oldest major version that clusters are made with: 14 is
// the first whose default password hash is SCRAM.
const minimumMajor = 14

// BinDirVariable names the environment variable that overrides the search for
// the folder of PostgreSQL's server programs.
const BinDirVariable = "SHARDPROXY_PG_BINDIR"

// Binaries says where the programs of one PostgreSQL installation are.
type Binaries struct {
	Dir     string // folder of initdb, postgres, pg_basebackup
	Major   int    // major version, for example 15
	Version string // as printed by "postgres --version" without the program name
}

// Path returns the full path of one program.
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// FindBinaries returns the PostgreSQL installation to use: the folder in
// $SHARDPROXY_PG_BINDIR (then nothing else is tried), else the first of: initdb
// in PATH, the newest version of the usual package folders, the folder
// pg_config names. The error wraps ErrNoPostgres and says what to install.
func FindBinaries() (Binaries, error) {
	if dir := os.Getenv(BinDirVariable); dir != "" {
		b, err := inspect(dir)
		if err != nil {
			return Binaries{}, fmt.Errorf("%w: %s is %s: %w; set it to the folder of initdb, postgres and pg_basebackup, "+
				"such as /usr/lib/postgresql/%d/bin, or unset it to have them searched for",
				ErrNoPostgres, BinDirVariable, dir, err, minimumMajor+1)
		}
		return b, nil
	}
	var tried []string
	for _, dir := range candidateDirs() {
		b, err := inspect(dir)
		if err == nil {
			return b, nil
		}
		tried = append(tried, fmt.Sprintf("%s (%v)", dir, err))
	}
	if tried == nil {
		tried = []string{"PATH", "/usr/lib/postgresql/*/bin", "pg_config --bindir"}
	}
	return Binaries{}, fmt.Errorf("%w (tried %s); install version %d or later: "+
		"apt-get install postgresql (Debian, Ubuntu), dnf install postgresql-server (Fedora), brew install postgresql (macOS), "+
		"or set %s to the folder that holds initdb",
		ErrNoPostgres, strings.Join(tried, ", "), minimumMajor, BinDirVariable)
}

// candidateDirs lists folders that may hold the server programs, best first.
func candidateDirs() []string {
	var dirs []string
	if p, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real
		}
		dirs = append(dirs, filepath.Dir(p))
	}
	var versioned []string
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"} {
		found, _ := filepath.Glob(pattern) // the only error is a bad pattern
		versioned = append(versioned, found...)
	}
	slices.SortStableFunc(versioned, func(a, b string) int { return pathVersion(b) - pathVersion(a) })
	dirs = append(dirs, versioned...)
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(dirs, func(d string) bool {
		dup := seen[d]
		seen[d] = true
		return dup
	})
}

// pathVersion returns the first number in the path's version part, so that 9
// sorts below 15.
func pathVersion(path string) int {
	digits := strings.FieldsFunc(path, func(r rune) bool { return r < '0' || r > '9' })
	if len(digits) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(digits[0]) // digits only; too long a number sorts last
	return n
}

// inspect asks the programs in dir for their version.
func inspect(dir string) (Binaries, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return Binaries{}, errors.New("no such folder")
	}
	for _, program := range []string{"initdb", "postgres", "pg_basebackup"} {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return Binaries{}, fmt.Errorf("it holds no %s", program)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("ask postgres for its version: %w", err)
	}
	return parseVersion(dir, string(out))
}

// parseVersion reads a line such as "postgres (PostgreSQL) 15.18 (Debian ...)".
func parseVersion(dir, line string) (Binaries, error) {
	_, version, ok := strings.Cut(strings.TrimSpace(line), "(PostgreSQL) ")
	if !ok {
		return Binaries{}, fmt.Errorf("unknown version line %q", line)
	}
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	major, err := strconv.Atoi(version[:end])
	if err != nil {
		return Binaries{}, fmt.Errorf("unknown version line %q", line)
	}
	if major < minimumMajor {
		return Binaries{}, fmt.Errorf("version %d is too old, need %d", major, minimumMajor)
	}
	return Binaries{Dir: dir, Major: major, Version: version}, nil
}
