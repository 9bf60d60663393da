package clientrun

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Judge compares, section by section, what a script printed over PostgreSQL itself with
// what it printed over the proxy. A section that says a failure over PostgreSQL fails too.
func (t Transcript) Judge(test *testing.T, got Transcript) {
	for _, section := range t {
		test.Run(section.Name, func(test *testing.T) {
			if failures := section.Failures(); failures != "" {
				test.Fatalf("against PostgreSQL itself:\n%s", failures)
			}
			if testing.Verbose() {
				test.Log("PostgreSQL:\n" + strings.Join(section.Lines, "\n"))
			}
			section.Judge(test, got.Find(section.Name))
		})
	}
}

// TouchSources looks at all that the tests of a package two folders below the root depend
// on without importing it: the proxy's sources and the scripts. So the go command knows
// of it, and does not take an old result for the new program. It notices what a test looks
// at, not what TestMain does.
func TouchSources() error {
	return filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != "../.." && strings.HasPrefix(entry.Name(), ".") {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go", ".mod", ".sum", ".sql", ".py", ".js", ".json", ".java", ".sh":
			_, err = os.Stat(path)
		}
		return err
	})
}
