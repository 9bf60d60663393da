package catalog

import (
	"slices"
	"testing"
)

func TestDottedNames(t *testing.T) {
	got := DottedNames(`set_config('app.Tenant', x, false); SET my.a.b = 1.5; "app.q" .x y. 3.4 a..b`)
	want := []string{"app.tenant", "my.a.b", "app.q", "a..b"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestMakesUpNames(t *testing.T) {
	for body, want := range map[string]bool{
		"begin perform set_config('app.x', $1, false); end":            false,
		"begin perform set_config('app.x'::text, $1, false); end":      false,
		"begin perform set_config('app.' || $1, $2, false); end":       true,
		"begin perform pg_catalog.set_config(name, $2, false); end":    true,
		`select "set_config" ( $1 , 'x', false)`:                       true,
		"begin update t set a = 1; end":                                false,
		"begin execute 'set app.x = 1'; end":                           false,
		"begin execute format('set %i = %l', n, v); end":               true,
		"begin execute 'set ' || n || ' = 1'; end":                     true,
		"begin execute 'set local app.y = ' || quote_literal($1); end": false,
		"-- set_config is not called here":                             false,
	} {
		if got := makesUpNames(body); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}
