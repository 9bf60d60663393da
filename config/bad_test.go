package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testEnv is the environment of every test.
func testEnv(name string) (string, bool) {
	v, ok := map[string]string{"PASSWORD": "secret of the environment", "LEVEL": "info", "EMPTY": ""}[name]
	return v, ok
}

var testOptions = Options{LookupEnv: testEnv}

// problemLines returns the problems of the error without the file's name and
// with the names of files in testdata shortened.
func problemLines(t *testing.T, err error) []string {
	t.Helper()
	var p *Problems
	if !errors.As(err, &p) || len(p.List) == 0 {
		t.Fatalf("error %v is not *Problems with at least one problem", err)
	}
	dir, absErr := filepath.Abs("testdata")
	if absErr != nil {
		t.Fatal(absErr)
	}
	var lines []string
	for _, one := range p.List {
		if one.File == "" {
			t.Errorf("problem without a file: %v", one)
		}
		line := strings.TrimLeft(strings.TrimPrefix(one.String(), one.File), ": ")
		lines = append(lines, strings.ReplaceAll(line, dir+string(filepath.Separator), ""))
	}
	return lines
}

// secrets are of the bad files, what they include and the environment.
var secrets = []string{
	"secret1", "secret of the environment", "teen bytes", "a key of enough", "from a file", "ypeBEsobvcr6wjGz", "dd4e461268c8034",
}

// TestBad holds one file for each refusal against what is said about it.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(badFiles) {
		t.Errorf("%d bad files and %d expectations", len(files), len(badFiles))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".bad.yaml")
		t.Run(name, func(t *testing.T) {
			want, ok := badFiles[name]
			if !ok {
				t.Fatal("no expectation for the file")
			}
			opts := testOptions
			opts.OneShard = strings.HasPrefix(name, "one_shard_")
			c, err := Load(file, opts)
			if err == nil {
				t.Fatal("accepted")
			}
			if c != nil {
				t.Error("a configuration came with the error")
			}
			got := problemLines(t, err)
			if last := len(want) - 1; want[last] == "..." { // and so on, up to the bound
				if len(got) != maxProblems {
					t.Errorf("%d problems", len(got))
				}
				want, got = want[:last], got[:min(last, len(got))]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			for _, secret := range secrets {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("a secret shows: %v", err)
				}
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load("testdata/no-such-file.yaml", testOptions)
	want := []string{"cannot read the file: no such file or directory"}
	if diff := cmp.Diff(want, problemLines(t, err)); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(err.Error(), "testdata/no-such-file.yaml: ") {
		t.Errorf("the file is not named: %v", err)
	}
}

func TestHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge.yaml")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxConfigBytes+1); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, testOptions)
	want := []string{"cannot read the file: longer than 16777216 bytes"}
	if diff := cmp.Diff(want, problemLines(t, err)); diff != "" {
		t.Error(diff)
	}
}

// TestHugeValue reads files of the longest password and of one byte more.
func TestHugeValue(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"most": maxSecretBytes, "more": maxSecretBytes + 1} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", size)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(setting string) error {
		text := "users: [{name: app, " + setting + "}]\ndatabases: {shop: {shards: [{name: s0, nodes: a}]}}\n"
		_, err := parse([]byte(text), filepath.Join(dir, "c.yaml"), testOptions)
		return err
	}
	for _, setting := range []string{`password: "${file:most}"`, "password_file: most"} {
		if err := load(setting); err != nil {
			t.Errorf("%s: %v", setting, err)
		}
	}
	for setting, want := range map[string]string{
		`password: "${file:more}"`: "1:31: users[0].password: ${file:more}: " + dir + "/more is longer than 65536 bytes",
		"password_file: more":      "1:21: users[0].password_file: " + dir + "/more is longer than 65536 bytes",
	} {
		if diff := cmp.Diff([]string{want}, problemLines(t, load(setting))); diff != "" {
			t.Errorf("%s: %s", setting, diff)
		}
	}
}

// TestBounds makes sure that aliases of aliases, and mistakes, end at a bound.
func TestBounds(t *testing.T) {
	many := func(n int, alias string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(alias+", ", n), ", ") + "]"
	}
	for _, c := range []struct{ text, want string }{
		{"auth:\n  rules:\n    - &r {method: trust, users: " + many(1000, "app") + "}\n" + strings.Repeat("    - *r\n", 1000),
			"the file has more than 200000 values, aliases counted each time"},
		{"users:\n  - &u {" + strings.Repeat("x: 1, y: 2, ", 20) + "}\n" + strings.Repeat("  - *u\n", 1000),
			"aliases.yaml: has 1000 problems or more; the rest is not shown"},
		{"log: &l {<<: " + many(1000, "*l") + "}\n", "<< goes too deep"},
		{smallest + "auth:\n  rules:\n" + strings.Repeat("    - {method: trust}\n", 1001), "auth.rules: are more than 1000"},
	} {
		d := &decoder{file: "aliases.yaml", opts: testOptions.withDefaults(), positions: map[string]position{}}
		d.section(d.document([]byte(c.text)), reflect.ValueOf(&Config{}).Elem(), "")
		if d.steps > maxSteps+10_000 {
			t.Errorf("%.40s... took %d steps", c.text, d.steps)
		}
		_, err := parse([]byte(c.text), "aliases.yaml", testOptions)
		var p *Problems
		if !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) || len(p.List) > maxProblems {
			t.Errorf("want %s, got %.500v", c.want, err)
		}
	}
}
