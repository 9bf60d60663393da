package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuzzOptions keep the world out: every variable and file has the same text.
var fuzzOptions = Options{
	LookupEnv: func(name string) (string, bool) { return "5s", name != "UNSET" },
	ReadFile:  func(string) ([]byte, error) { return []byte("text\n"), nil },
	Now:       func() time.Time { return time.Unix(1e9, 0) },
}

// FuzzParse holds that a text is either refused with problems, or printed as a
// text that means the same.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, data string) {
		c, err := parse([]byte(data), "fuzz.yaml", fuzzOptions)
		if err != nil {
			checkProblems(t, c, err)
			return
		}
		printed := c.String()
		if strings.Contains(printed, redacted) {
			return // what is redacted does not read back
		}
		again, err := parse([]byte(printed), "fuzz.yaml", fuzzOptions)
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if diff := Diff(c, again); diff != nil {
			t.Fatalf("%v\n%s", diff, printed)
		}
		if !slices.Equal(c.Settings(), again.Settings()) {
			t.Fatalf("settings differ:\n%s", printed)
		}
	})
}

func checkProblems(t *testing.T, c *Config, err error) {
	var p *Problems
	if c != nil || !errors.As(err, &p) || len(p.List) == 0 {
		t.Fatalf("configuration %v with error %v", c, err)
	}
	for _, one := range p.List {
		if one.File == "" || one.Message == "" {
			t.Fatalf("problem %+v", one)
		}
	}
}

// FuzzUnits holds that durations and sizes are printed as they are read.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"0", "1s", "1h30m", "7d", "500ms", "64MB", "1GiB", "10000B", "-5m", "1d", "1 kB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDuration(s); err == nil {
			if again, err := parseDuration(formatDuration(d)); err != nil || again != d {
				t.Errorf("%q: %v, printed as %q: %v, %v", s, d, formatDuration(d), again, err)
			}
		}
		if n, err := parseSize(s); err == nil {
			if again, err := parseSize(n.String()); err != nil || again != n || n < 0 {
				t.Errorf("%q: %d, printed as %q: %d, %v", s, n, n.String(), again, err)
			}
		}
	})
}
