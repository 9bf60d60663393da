package router

import (
	"strings"

	"shardproxy/query"
)

// AnyView stands for views whose names are not known.
const AnyView = "\x00*"

// AddViews returns the names of both lists of views.
func AddViews(list, more string) string {
	switch {
	case list == AnyView || more == AnyView:
		return AnyView
	case list == "":
		return more
	}
	for name := range strings.SplitSeq(strings.Trim(more, "\x00"), "\x00") {
		if name != "" && !names(list, name) {
			list += name + "\x00"
		}
	}
	return list
}

// names reports whether a list has a name.
func names(list, name string) bool { return strings.Contains(list, "\x00"+name+"\x00") }

// makesViews names the views that are there behind a command and were not before, or
// are others than they were. The schema does not matter, and what is renamed may be one.
func makesViews(sh *query.Shape, sql string) string {
	switch what := sh.What(); {
	case sh.Kind == query.ShapeCreateView && len(sh.Tables) == 1:
		return "\x00" + sh.Tables[0].Name + "\x00"
	case sh.Kind == query.ShapeCreateView,
		what == "the command RenameStmt" && renames(sql),
		what == "the command CreateSchemaStmt" && strings.Contains(strings.ToLower(sql), "view"):
		return AnyView
	}
	return ""
}

// madeTable is how the names of views have that of a table which a column of it puts on several shards.
func madeTable(name string) string { return "\x00\x01" + name + "\x00" }

// renames reports whether an ALTER ... RENAME may give a new name to what it names
// first, and not to a part of it.
func renames(sql string) bool {
	if strings.Contains(sql, "/*") || strings.Contains(sql, "--") {
		return true
	}
	words := strings.Fields(strings.ToLower(sql))
	for i, w := range words {
		if w == "rename" && i+1 < len(words) && words[i+1] == "to" {
			return true
		}
	}
	return false
}
