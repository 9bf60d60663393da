package config

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Options are what Load needs from outside; the zero value is the real world.
type Options struct {
	// LookupEnv finds environment variables; os.LookupEnv when nil.
	LookupEnv func(name string) (string, bool)
	// ReadFile reads the files that settings name (passwords, certificates);
	// ordinary files of the file system when nil.
	ReadFile func(path string) ([]byte, error)
	// Now is the time that certificates are checked at; time.Now when nil.
	Now func() time.Time
	// OneShard says that the program serves databases of one shard only: more
	// are a problem, and rules for tables bring a warning.
	OneShard bool
}

func (o Options) withDefaults() Options {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.ReadFile == nil {
		o.ReadFile = readRegular
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Load reads the configuration file. The error, if any, is *Problems with
// everything that is wrong with it.
func Load(path string, opts Options) (*Config, error) {
	data, err := loadFile(path)
	if err != nil {
		return nil, &Problems{List: []Problem{{File: path, Message: "cannot read the file: " + readCause(err).Error()}}}
	}
	c, err := parse(data, path, opts)
	if err == nil && c.secretsInside {
		if st, statErr := os.Stat(path); statErr == nil && st.Mode().Perm()&0o004 != 0 {
			c.warnings = append(c.warnings, Problem{File: path,
				Message: "everybody on this machine can read the file, and it holds passwords", Hint: "chmod o-r, or put them into files of their own"})
		}
	}
	return c, err
}

// loadFile reads the file itself, which may be a pipe of the caller's shell.
func loadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

// Parse is Load for a file's text. name stands for the file in problems, and
// its folder is where relative file names start.
func Parse(data []byte, name string) (*Config, error) { return parse(data, name, Options{}) }

func parse(data []byte, name string, opts Options) (*Config, error) {
	dir, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		return nil, &Problems{List: []Problem{{File: name, Message: err.Error()}}}
	}
	d := &decoder{file: name, dir: dir, opts: opts.withDefaults(), positions: map[string]position{}}
	c := &Config{}
	v := reflect.ValueOf(c).Elem()
	setDefaults(v)
	root := d.document(data)
	if root == nil {
		return nil, &Problems{List: d.problems}
	}
	d.section(root, v, "")
	if !d.over() {
		(&validator{decoder: d, c: c, decoded: len(d.problems)}).validate()
	}
	if len(d.problems) > 0 {
		sortProblems(d.problems)
		return nil, &Problems{List: d.problems}
	}
	sortProblems(d.warnings)
	c.warnings, c.secretsInside = d.warnings, d.secretsInside
	return c, nil
}

// document returns the root of the only document of the text; nil when there
// is none, and then a problem says so.
func (d *decoder) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); err != nil {
		d.syntaxProblem(err, data)
		return nil
	}
	switch err := dec.Decode(&second); {
	case err == nil:
		d.problem(&second, "", "the file holds a second document", "one file, one configuration: remove the line ---")
		return nil
	case !errors.Is(err, io.EOF):
		d.syntaxProblem(err, data)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || isNull(doc.Content[0]) {
		d.problem(&yaml.Node{}, "", "the file is empty", "")
		return nil
	}
	return doc.Content[0]
}

var (
	syntaxLine    = regexp.MustCompile(`^line (\d+): `)
	parserMessage = regexp.MustCompile(`^did not find expected (<|'-'|',' |key$|node content$)|^found (undefined tag handle|duplicate %|incompatible)`)
	readerMessage = regexp.MustCompile(`^(control characters|invalid|incomplete|input error|value out of range|unexpected low surrogate)`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced`)
)

// syntaxProblem reports text that is not YAML. It shows nothing of the text,
// which may hold passwords.
func (d *decoder) syntaxProblem(err error, data []byte) {
	if errors.Is(err, io.EOF) {
		d.problem(&yaml.Node{}, "", "the file is empty", "")
		return
	}
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	lines := strings.Split(string(data), "\n")
	if m := unknownAnchor.FindStringSubmatch(msg); m != nil {
		n := &yaml.Node{}
		n.Line = 1 + slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "*"+m[1]) })
		d.problem(n, "", "not YAML: an alias that no anchor stands for", "quote a value that begins with *")
		return
	}
	n := &yaml.Node{Line: 1}
	if m := syntaxLine.FindStringSubmatch(msg); m != nil {
		n.Line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
		if parserMessage.MatchString(msg) {
			n.Line++ // the library counts these from 0
		}
	} else if readerMessage.MatchString(msg) {
		n.Line = 0 // it does not say where
	}
	hint := ""
	if msg == "did not find expected key" {
		hint = "check the indentation in the section that begins here"
	}
	for i := max(0, n.Line-2); i < min(len(lines), n.Line+1); i++ {
		if strings.Contains(lines[i], "${") {
			hint = "inside {...} and [...] a value with a variable must be quoted: \"${NAME}\""
		}
	}
	d.problem(n, "", "not YAML: "+msg, hint)
}
