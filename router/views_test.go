package router

import (
	"testing"

	"shardproxy/query"
)

// TestNewViews finds the names of the views that a command makes.
func TestNewViews(t *testing.T) {
	for sql, want := range map[string]string{
		"CREATE VIEW v AS SELECT 1":                                        "\x00v\x00",
		`CREATE OR REPLACE VIEW s."V w" (a) AS SELECT 1`:                   "\x00V w\x00",
		"CREATE RECURSIVE VIEW v (a) AS SELECT 1":                          "\x00v\x00",
		"ALTER VIEW v RENAME TO w":                                         AnyView,
		"ALTER TABLE v RENAME\n TO w":                                      AnyView,
		"ALTER TABLE v RENAME/**/TO w":                                     AnyView,
		"ALTER TABLE t RENAME a TO b":                                      "",
		"ALTER TABLE t RENAME COLUMN a TO b":                               "",
		"CREATE SCHEMA s CREATE TABLE t (a int) CREATE VIEW v AS SELECT 1": AnyView,
		"CREATE SCHEMA s":                                                  "",
		"CREATE TABLE v (a int)":                                           "",
		"DROP VIEW v":                                                      "",
	} {
		_, shapes := query.AnalyzeShapes(sql, query.Options{})
		if len(shapes) != 1 {
			t.Fatal(sql)
		}
		if got := makesViews(shapes[0], sql); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
	list := AddViews(AddViews("", "\x00v\x00"), "\x00w\x00")
	if list != AddViews(list, "\x00v\x00") || !names(list, "v") || !names(list, "w") || names(list, "x") || names(list, "") {
		t.Errorf("%q", list)
	}
	if AddViews(list, AnyView) != AnyView || AddViews(AnyView, list) != AnyView {
		t.Error("what is not known is known")
	}
}
