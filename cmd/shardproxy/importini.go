package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pgbouncerFile is what pgbouncer.ini says, in its order. The format is PgBouncer's own: src/util.c and libusual's cfparser.c.
type pgbouncerFile struct {
	settings  map[string]string // of [pgbouncer]
	databases []pgbouncerEntry
	users     []pgbouncerEntry
	peers     int
	unknown   []string // sections
}

// pgbouncerEntry is a line of [databases] or [users]: a name and keywords with values.
type pgbouncerEntry struct {
	name     string
	keywords []pgbouncerKeyword
}

type pgbouncerKeyword struct{ name, value string }

// get returns the last value of a keyword, "" for none.
func (e *pgbouncerEntry) get(name string) (value string) {
	for _, k := range e.keywords {
		if k.name == name {
			value = k.value
		}
	}
	return value
}

// includesAtMost bounds how deep files include each other.
const includesAtMost = 10

// readPgBouncer reads the file, and what it includes.
func readPgBouncer(path string) (*pgbouncerFile, error) {
	f := &pgbouncerFile{settings: map[string]string{}}
	section := ""
	return f, f.read(path, &section, 0)
}

func (f *pgbouncerFile) read(path string, section *string, depth int) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		include, isInclude := strings.CutPrefix(line, "%include")
		switch {
		case line == "" || line[0] == ';' || line[0] == '#':
		case isInclude:
			name := strings.Trim(strings.TrimSpace(include), `"'`)
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(path), name)
			}
			err = errors.New("files include each other too deep")
			if depth < includesAtMost {
				err = f.read(name, section, depth+1)
			}
		case line[0] == '[' && strings.HasSuffix(line, "]"):
			*section = strings.ToLower(strings.TrimSpace(line[1 : len(line)-1]))
			if *section != "pgbouncer" && *section != "databases" && *section != "users" && *section != "peers" {
				f.unknown = append(f.unknown, *section)
			}
		default:
			err = f.line(*section, line)
		}
		if err != nil {
			return fmt.Errorf("%s, line %d: %w", path, n, err)
		}
	}
	return lines.Err()
}

// line takes one line of a section.
func (f *pgbouncerFile) line(section, line string) error {
	name, value, ok := cutName(line)
	if !ok {
		return fmt.Errorf("%q is neither a section nor a setting", line)
	}
	switch section {
	case "pgbouncer":
		f.settings[strings.ToLower(name)] = value
	case "databases", "users":
		keywords, err := readKeywords(value)
		if err != nil {
			return err
		}
		e := pgbouncerEntry{name, keywords}
		if section == "users" {
			f.users = append(f.users, e)
		} else {
			f.databases = append(f.databases, e)
		}
	case "peers":
		f.peers++
	case "":
		return errors.New("a setting stands before the first section")
	}
	return nil
}

// cutName cuts a line at its first = behind the name, which may be in double quotes.
func cutName(line string) (name, value string, ok bool) {
	if line[0] == '"' {
		if name, line, ok = cutQuoted(line, `"`); !ok {
			return "", "", false
		}
		value, ok = strings.CutPrefix(strings.TrimSpace(line), "=")
		return name, strings.TrimSpace(value), ok
	}
	name, value, ok = strings.Cut(line, "=")
	return strings.TrimSpace(name), strings.TrimSpace(value), ok && strings.TrimSpace(name) != ""
}

// readKeywords reads host=a port=5432 password='it”s'.
func readKeywords(text string) (all []pgbouncerKeyword, err error) {
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		name, rest, ok := strings.Cut(text, "=")
		if name = strings.TrimSpace(name); !ok || name == "" || strings.ContainsAny(name, " \t'") {
			return nil, fmt.Errorf("%q is not keyword=value", text)
		}
		rest = strings.TrimLeft(rest, " \t")
		var value string
		if strings.HasPrefix(rest, "'") {
			if value, text, ok = cutQuoted(rest, "'"); !ok {
				return nil, fmt.Errorf("the value of %s has no closing quote", name)
			}
		} else {
			end := strings.IndexAny(rest, " \t")
			if end < 0 {
				end = len(rest)
			}
			value, text = rest[:end], rest[end:]
		}
		all = append(all, pgbouncerKeyword{strings.ToLower(name), value})
	}
	return all, nil
}

// pgbouncerSecret is a line of an auth_file.
type pgbouncerSecret struct{ name, secret string }

// readUserList reads "name" "secret" lines.
func readUserList(path string) (all []pgbouncerSecret, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] != '"' {
			continue // as PgBouncer does
		}
		name, rest, ok := cutQuoted(line, `"`)
		secret, _, ok2 := cutQuoted(strings.TrimSpace(rest), `"`)
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s, line %d: want \"name\" \"secret\"", path, n)
		}
		all = append(all, pgbouncerSecret{name, secret})
	}
	return all, nil
}

// cutQuoted takes a text in quotes off the beginning; one that is doubled stands for itself.
func cutQuoted(text, quote string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, quote) {
		return "", text, false
	}
	var b strings.Builder
	for text = text[1:]; ; {
		part, behind, closed := strings.Cut(text, quote)
		b.WriteString(part)
		if !closed {
			return "", "", false
		}
		if !strings.HasPrefix(behind, quote) {
			return b.String(), behind, true
		}
		b.WriteString(quote)
		text = behind[1:]
	}
}
