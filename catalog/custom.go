package catalog

import (
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// PostgreSQL lists every setting of a session but custom ones ("app.tenant")
// that no module has declared. Whoever wants to know what a function may have
// left behind must ask for these by name; the names stand in the functions.

// CustomSettings returns the names of the custom settings that functions of the
// database may set, sorted; complete is false when one of them makes up names
// as it runs. The slice must not be changed.
func (c *Catalog) CustomSettings() (names []string, complete bool) {
	return c.customNames, !c.customDynamic
}

// customNamesMax bounds how many names are kept; with more the list is not complete.
const customNamesMax = 500

// customSettingsSQL, with NEWBODY as in tableFunctionsSQL, returns the bodies of functions that may set something:
// only these are read for names.
const customSettingsSQL = `
SELECT coalesce(NEWBODY, p.prosrc),
       EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.oid >= 16384 AND l.lanname NOT IN ('c', 'internal')
  AND coalesce(NEWBODY, p.prosrc) ~* '(set_config|\mset\M)'`

func (c *Catalog) customRow(r pgx.CollectableRow) (struct{}, error) {
	var body string
	var extension bool
	if err := r.Scan(&body, &extension); err != nil {
		return struct{}{}, err
	}
	c.customNames = append(c.customNames, DottedNames(body)...)
	// What an extension does to settings of names that it makes up is its own affair.
	c.customDynamic = c.customDynamic || !extension && makesUpNames(strings.ToLower(body))
	return struct{}{}, nil
}

func (c *Catalog) settleCustom() {
	slices.Sort(c.customNames)
	c.customNames = slices.Compact(c.customNames)
	if len(c.customNames) > customNamesMax {
		c.customNames, c.customDynamic = c.customNames[:customNamesMax], true
	}
}

// makesUpNames reports whether a body, in lower case, may set a custom setting
// whose name does not stand in it: set_config of an expression, or a SET that is
// put together as a string.
func makesUpNames(body string) bool {
	for rest := body; ; {
		_, after, found := strings.Cut(rest, "set_config")
		if !found {
			break
		}
		rest = after
		args, isCall := strings.CutPrefix(strings.TrimLeft(after, "\" \t\r\n"), "(")
		if isCall && !constantFirst(strings.TrimSpace(args)) {
			return true
		}
	}
	if !strings.Contains(body, "execute") {
		return false
	}
	for rest := body; ; {
		_, after, found := strings.Cut(rest, "set ")
		if !found {
			return false
		}
		rest = after
		end := strings.IndexAny(after, ";=")
		if end < 0 {
			end = len(after)
		}
		if strings.ContainsAny(after[:end], "%|") {
			return true
		}
	}
}

// constantFirst reports whether the first of the arguments is one string constant.
func constantFirst(args string) bool {
	if !strings.HasPrefix(args, "'") {
		return false
	}
	_, after, closed := strings.Cut(args[1:], "'")
	after = strings.TrimPrefix(strings.TrimSpace(after), "::text")
	return closed && strings.HasPrefix(strings.TrimSpace(after), ",")
}

// DottedNames returns the words of the form a.b in a text, in lower case, each
// as often as it stands there: every name of a custom setting is among them.
func DottedNames(text string) (names []string) {
	for i := 0; i < len(text); {
		if !isWordByte(text[i]) {
			i++
			continue
		}
		start, dots := i, 0
		for i < len(text) && (isWordByte(text[i]) || text[i] == '$' || text[i] == '.') {
			if text[i] == '.' {
				dots++
			}
			i++
		}
		word := strings.Trim(text[start:i], ".")
		if dots > 0 && strings.Contains(word, ".") && (word[0] < '0' || word[0] > '9') && len(word) < 128 {
			names = append(names, strings.ToLower(word))
		}
	}
	return names
}
