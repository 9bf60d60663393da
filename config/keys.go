package config

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

type pair struct{ key, value *yaml.Node }

// pairs returns the keys and values of the mapping n, those merged in with <<
// last; a key set twice in the mapping itself is a problem.
func (d *decoder) pairs(n *yaml.Node, path string) []pair {
	var list []pair
	seen := map[string]*yaml.Node{}
	d.gather(n, path, 0, seen, &list)
	return list
}

func (d *decoder) gather(n *yaml.Node, path string, depth int, seen map[string]*yaml.Node, list *[]pair) {
	var merges []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, ok := d.step(n.Content[i])
		switch {
		case !ok:
			return
		case k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge":
			merges = append(merges, n.Content[i+1])
			continue
		case k.Kind != yaml.ScalarNode || isNull(k) || k.Value == "" || strings.ContainsRune(k.Value, 0):
			d.problem(k, path, "a key must be a word", "")
			continue
		}
		first, twice := seen[k.Value]
		switch {
		case !twice:
			seen[k.Value] = k
			*list = append(*list, pair{k, n.Content[i+1]})
		case depth == 0:
			d.problem(k, joinPath(path, k.Value), fmt.Sprintf("is already on line %d", first.Line), "")
		}
	}
	for _, m := range merges {
		d.merge(m, path, depth+1, seen, list)
	}
}

// merge adds the keys of m that are not seen: a mapping or a list of mappings.
func (d *decoder) merge(m *yaml.Node, path string, depth int, seen map[string]*yaml.Node, list *[]pair) {
	at := m
	m, ok := d.step(m)
	switch {
	case !ok:
	case depth > maxMerges:
		d.problem(at, path, "<< goes too deep", "")
	case m.Kind == yaml.MappingNode:
		d.gather(m, path, depth, seen, list)
	case m.Kind == yaml.SequenceNode:
		for _, c := range m.Content {
			d.merge(c, path, depth+1, seen, list)
		}
	default:
		d.problem(at, path, "<< takes a section, not "+kindName(m), "")
	}
}

// unknown reports a key that the section does not have.
func (d *decoder) unknown(k *yaml.Node, path, section string, fields []field) {
	var keys []string
	for _, f := range fields {
		keys = append(keys, f.key)
	}
	hint := ""
	if near := nearest(k.Value, keys); near != "" {
		hint = "did you mean " + near + "?"
	} else if there := placesOf(k.Value); len(there) > 0 {
		hint = "the key belongs to " + strings.Join(there, " or ")
	} else {
		slices.Sort(keys)
		hint = "known here: " + strings.Join(keys, ", ")
	}
	if section == "" {
		section = "the file"
	}
	d.problem(k, path, "unknown key in "+section, hint)
}

// nearest returns the word that key was probably meant to be, or "".
func nearest(key string, words []string) string {
	best, bestAt := "", max(1, len(key)/3)+1
	for _, w := range words {
		if at := distance(strings.ToLower(key), w); at < bestAt {
			best, bestAt = w, at
		}
	}
	return best
}

func didYouMean(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return ""
}

// distance is the number of letters to insert, drop, replace or swap with
// their neighbour to turn a into b.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// placesOf returns the sections that have the key.
func placesOf(key string) []string {
	var list []string
	for _, k := range keysOf(reflect.TypeFor[Config](), "") {
		if strings.HasSuffix(k.path, "."+key) {
			list = append(list, strings.TrimSuffix(k.path, "."+key))
		} else if k.path == key {
			list = append(list, "the top level of the file")
		}
	}
	return list
}

// keyOf is a key of the schema with its whole path, <name> and [] for elements.
type keyOf struct {
	path string
	field
}

// keysOf returns every key below the section t, sections included.
func keysOf(t reflect.Type, path string) []keyOf {
	var list []keyOf
	for _, f := range fieldsOf(t) {
		p := f.key
		switch {
		case f.key == "":
			p = path
		case path != "":
			p = path + "." + f.key
		}
		list = append(list, keyOf{p, f})
		inner := f.typ
		if inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		switch f.nature() {
		case section:
			list = append(list, keysOf(inner, p)...)
		case elements:
			if f.isMap {
				p += ".<name>"
			} else {
				p += "[]"
			}
			list = append(list, keysOf(inner, p)...)
		}
	}
	return list
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// joinPath returns the path of the key in the section; without a key it is the
// section's own.
func joinPath(section, key string) string {
	if key == "" {
		return section
	}
	if !plainKey.MatchString(key) {
		return section + "[" + strconv.Quote(key) + "]"
	}
	if section == "" {
		return key
	}
	return section + "." + key
}

// parentPath returns the path of the section around the setting. Around a
// quoted key it may stop at a text that is no path, which nothing has set.
func parentPath(path string) string {
	return path[:max(0, strings.LastIndexAny(path, ".["))]
}
