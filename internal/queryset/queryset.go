// Package queryset reads files with one query each, in which the values that a
// client would choose are marked, and gives each query with its values as constants
// or as parameters. Tests compare the answers of two servers to such queries.
//
// A file begins with comments; "-- order: 2 1" names the columns of the result, from
// 1, that its ORDER BY names, and "-- limit" says that it gives the first rows only.
// Values stand in the text as {kind value}: {text BUILDING}, {int 15}, {num 0.05},
// {date 1995-03-15} and {interval 90 days}.
package queryset

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Query is one query of a set. It is not changed by its methods.
type Query struct {
	Name  string // of its file, without its ending
	Title string // the first line of its comments
	// Order are the columns of the result, from 0, that ORDER BY names; rows that are
	// equal in all of them may come in any order.
	Order []int
	// Limited is set when rows are left out behind a number of them, so that of rows
	// equal in Order any may be there.
	Limited bool

	pieces []piece
}

// piece is text as it is, or a value when kind is set.
type piece struct{ kind, text string }

// Read returns the queries of the files of a folder, in the order of their names.
func Read(files fs.FS, folder string) ([]Query, error) {
	names, err := fs.Glob(files, path.Join(folder, "*.sql"))
	if err != nil {
		return nil, err
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(stem(a), stem(b)) })
	var all []Query
	for _, name := range names {
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		q, err := parse(string(content))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		q.Name = stem(name)
		all = append(all, q)
	}
	return all, nil
}

// stem is the name of a file without its folder and ending.
func stem(name string) string { return strings.TrimSuffix(path.Base(name), ".sql") }

func parse(content string) (q Query, err error) {
	var text strings.Builder
	for line := range strings.Lines(content) {
		comment, ok := strings.CutPrefix(strings.TrimSpace(line), "-- ")
		order, ordered := strings.CutPrefix(comment, "order: ")
		switch {
		case !ok:
			text.WriteString(line)
		case ordered:
			for field := range strings.FieldsSeq(order) {
				n, err := strconv.Atoi(field)
				if err != nil || n < 1 {
					return q, fmt.Errorf("order names the column %q", field)
				}
				q.Order = append(q.Order, n-1)
			}
		case comment == "limit":
			q.Limited = true
		case q.Title == "":
			q.Title = comment
		}
	}
	q.pieces, err = split(strings.TrimSpace(text.String()))
	return q, err
}

// split cuts a text at its values.
func split(text string) (all []piece, err error) {
	for {
		before, rest, found := strings.Cut(text, "{")
		all = append(all, piece{text: before})
		if !found {
			return all, nil
		}
		value, after, found := strings.Cut(rest, "}")
		kind, value, spaced := strings.Cut(value, " ")
		if !found || !spaced || !slices.Contains([]string{"text", "int", "num", "date", "interval"}, kind) {
			return nil, fmt.Errorf("no value: {%.20s", rest)
		}
		all, text = append(all, piece{kind, value}), after
	}
}

// Constants returns the query with its values as constants.
func (q Query) Constants() string {
	var b strings.Builder
	for _, p := range q.pieces {
		switch p.kind {
		case "", "int", "num":
			b.WriteString(p.text)
		case "text":
			b.WriteString(quoted(p.text))
		default:
			b.WriteString(p.kind + " " + quoted(p.text))
		}
	}
	return b.String()
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// Parameters returns the query with its values as parameters, and their values. A
// value that stands in several places is one parameter.
func (q Query) Parameters() (sql string, args []any) {
	var b strings.Builder
	var seen []piece
	for _, p := range q.pieces {
		if p.kind == "" {
			b.WriteString(p.text)
			continue
		}
		i := slices.Index(seen, p)
		if i < 0 {
			i = len(seen)
			seen, args = append(seen, p), append(args, p.text)
		}
		fmt.Fprintf(&b, "$%d", i+1)
		switch p.kind { // whose type beside an operator may be another, or none
		case "date", "interval":
			b.WriteString("::" + p.kind)
		case "num":
			b.WriteString("::numeric")
		}
	}
	return b.String(), args
}
