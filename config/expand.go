package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"go.yaml.in/yaml/v3"
)

const (
	maxConfigBytes = 16 << 20
	maxSecretBytes = 64 << 10 // PostgreSQL's bound on a password message
)

// expand returns the text of the scalar n with its variables replaced:
//
//	${NAME}            the environment variable, which must be set
//	${NAME:-default}   the same, or the default when it is unset or empty
//	${file:PATH}       what the file holds, without its last line break
//	$${                the two characters ${
//
// Every other dollar sign stands for itself. expanded says that the text is
// not what the file shows, and so must not be shown in a problem.
func (d *decoder) expand(n *yaml.Node, path string) (text string, expanded, ok bool) {
	var b strings.Builder
	rest := n.Value
	for {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			b.WriteString(rest)
			break
		}
		if strings.HasSuffix(before, "$") {
			b.WriteString(before + "{")
			rest = after
			continue
		}
		b.WriteString(before)
		name, behind, closed := strings.Cut(after, "}")
		if !closed {
			d.problem(n, path, `"${" has no "}" behind it`, literalDollar)
			return "", false, false
		}
		value, err := d.variable(name)
		if err != nil {
			hint := ""
			if errors.Is(err, errNoVariable) {
				hint = literalDollar
			}
			d.problem(n, path, err.Error(), hint)
			return "", false, false
		}
		b.WriteString(value)
		expanded, rest = true, behind
	}
	text = b.String()
	if strings.ContainsRune(text, 0) {
		d.problem(n, path, "holds a zero byte", "")
		return "", false, false
	}
	return text, expanded, true
}

const literalDollar = `write "$${" where the characters themselves are meant`

// errNoVariable does not show what stands there: it may be a piece of a password.
var errNoVariable = errors.New(`"${" is not followed by the name of a variable and "}"`)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// variable returns what stands for ${expr}.
func (d *decoder) variable(expr string) (string, error) {
	if file, ok := strings.CutPrefix(expr, "file:"); ok {
		text, err := d.readText(d.abs(file))
		if err != nil {
			return "", fmt.Errorf("${%s}: %w", expr, err)
		}
		return text, nil
	}
	name, def, hasDef := strings.Cut(expr, ":-")
	if !variableName.MatchString(name) {
		return "", errNoVariable
	}
	value, set := d.opts.LookupEnv(name)
	if hasDef && value == "" {
		return def, nil
	}
	if !set {
		return "", fmt.Errorf("the environment variable %s is not set", name)
	}
	return value, nil
}

// abs resolves a file name against the folder of the configuration file.
func (d *decoder) abs(file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(d.dir, file)
}

// readText reads a small file without its last line break.
func (d *decoder) readText(path string) (string, error) {
	data, err := d.opts.ReadFile(path)
	if err != nil {
		return "", readError(path, err)
	}
	if len(data) > maxSecretBytes {
		return "", fmt.Errorf("%s is longer than %d bytes", path, maxSecretBytes)
	}
	text := strings.TrimSuffix(string(data), "\n")
	return strings.TrimSuffix(text, "\r"), nil
}

// readError says why the file could not be read, its name once.
func readError(path string, err error) error {
	return fmt.Errorf("cannot read %s: %w", path, readCause(err))
}

// readCause takes the file's name out of an error of package os.
func readCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

var errNotRegular = errors.New("not an ordinary file")

// readRegular reads an ordinary file: a device or a pipe could block or never end.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return readBounded(f)
}

// readBounded reads all of r, up to the longest configuration file.
func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxConfigBytes+1))
	if err == nil && len(data) > maxConfigBytes {
		err = fmt.Errorf("longer than %d bytes", maxConfigBytes)
	}
	return data, err
}

// checkSecretMode warns when everybody on the machine can read a file that holds a secret.
func (d *decoder) checkSecretMode(path, setting string) {
	if st, err := os.Stat(path); err == nil && st.Mode().Perm()&0o004 != 0 {
		d.warn(setting, "everybody on this machine can read "+path, "chmod o-r")
	}
}
