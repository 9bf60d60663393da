package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Identifier is the name of a column as PostgreSQL's catalogs have it. The file
// has it as SQL does: folded to lower case unless it is quoted.
type Identifier string

var (
	plainIdentifier = regexp.MustCompile(`^[a-z_][a-z0-9_$]*$`)
	bareName        = regexp.MustCompile(`^` + sqlName + `$`)
	// qualifiedName is an SQL name with or without a schema, each part perhaps quoted.
	qualifiedName = regexp.MustCompile(`^(?:(` + sqlName + `)\.)?(` + sqlName + `)$`)
	// schemaPattern is a schema's name, or how it begins with a * behind it.
	schemaPattern = regexp.MustCompile(`^(?:(?:` + sqlName + `)\*?|\*)$`)
)

const sqlName = `(?:[\pL_][\pL\pN_$]*|"(?:[^"]|"")+")`

// String returns the name as the file would have it, quoted where it must be.
func (i Identifier) String() string {
	if i == "" || plainIdentifier.MatchString(string(i)) {
		return string(i)
	}
	return `"` + strings.ReplaceAll(string(i), `"`, `""`) + `"`
}

var errNameLong = fmt.Errorf("is longer than %d bytes", maxNameBytes)

func parseIdentifier(text string) (Identifier, error) {
	if !bareName.MatchString(text) {
		return "", errors.New("is not a column's name")
	}
	name := fold(text)
	if len(name) > maxNameBytes {
		return "", errNameLong
	}
	return Identifier(name), nil
}

// fold returns an SQL name as PostgreSQL folds it: ASCII letters to lower case,
// or what stands between the quotes.
func fold(name string) string {
	if quoted, ok := strings.CutPrefix(name, `"`); ok {
		return strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `""`, `"`)
	}
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, name)
}

var errNoName = errors.New("is no name")

// splitName returns the parts of a name with or without its schema, folded. The
// error is errNoName or errNameLong.
func splitName(text string) (schema, name string, err error) {
	m := qualifiedName.FindStringSubmatch(text)
	if m == nil {
		return "", "", errNoName
	}
	schema, name = fold(m[1]), fold(m[2])
	if len(schema) > maxNameBytes || len(name) > maxNameBytes {
		return "", "", errNameLong
	}
	return schema, name, nil
}

// ownSchema reports whether the schema is PostgreSQL's or the proxy's own: no
// rule holds there, and temporary tables are of one session.
func ownSchema(name string) bool {
	return name == "information_schema" || name == ConsoleDatabase || strings.HasPrefix(name, "pg_")
}
