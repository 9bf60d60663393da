package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard is what is looked at of a dashboard of Grafana.
type dashboard struct {
	UID           string `json:"uid"`
	Title         string `json:"title"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID          int    `json:"id"`
	Type        string `json:"type"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Datasource  struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	Grid struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Targets []struct {
		Expr   string `json:"expr"`
		Legend string `json:"legendFormat"`
	} `json:"targets"`
	Config struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
}

var (
	variable   = regexp.MustCompile(`\$\{?([a-z_]+)`)
	legend     = regexp.MustCompile(`{{ *([a-z_]+) *}}`)
	definition = regexp.MustCompile(`^label_values\((.*), ([a-z_]+)\)$`)
)

// TestDashboards: each query is one that Prometheus understands, of metrics and labels that the program exports, and each
// panel says what it shows.
func TestDashboards(t *testing.T) {
	files, err := filepath.Glob("../../deploy/grafana/*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("dashboards: %v, %v", files, err)
	}
	exprs, uids := map[string]string{}, map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var d dashboard
		if err := json.Unmarshal(b, &d); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if d.SchemaVersion < 38 || d.UID == "" || uids[d.UID] || d.Title == "" {
			t.Errorf("%s: schema %d, uid %q, title %q", file, d.SchemaVersion, d.UID, d.Title)
		}
		uids[d.UID] = true
		checkDashboard(t, filepath.Base(file), &d, exprs)
	}
	if len(exprs) < 50 {
		t.Errorf("only %d queries were found", len(exprs))
	}
	checkSyntax(t, exprs)
}

// checkDashboard looks at one dashboard, and adds its queries to exprs, with values for its variables.
func checkDashboard(t *testing.T, file string, d *dashboard, exprs map[string]string) {
	t.Helper()
	families := exported(t)
	known := []string{"__rate_interval"}
	for _, v := range d.Templating.List {
		known = append(known, v.Name)
		if v.Type == "datasource" {
			continue
		}
		m := definition.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Errorf("%s, variable %s: %s", file, v.Name, v.Definition)
			continue
		}
		if labels := checkPromQL(t, file+", variable "+v.Name, m[1], families); !slices.Contains(labels, m[2]) {
			t.Errorf("%s, variable %s: there is no label %s", file, v.Name, m[2])
		}
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		where := file + ", " + p.Title
		if ids[p.ID] || p.Title == "" {
			t.Errorf("%s: its number %d is taken, or it has no title", where, p.ID)
		}
		ids[p.ID] = true
		for x := p.Grid.X; x < p.Grid.X+p.Grid.W; x++ {
			for y := p.Grid.Y; y < p.Grid.Y+p.Grid.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies over %q, or beyond the edge", where, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.Datasource.UID != "${datasource}" || p.Config.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("%s: it lacks a description, the data source, a unit or a query", where)
		}
		for i, q := range p.Targets {
			labels := checkPromQL(t, where, q.Expr, families)
			for _, m := range legend.FindAllStringSubmatch(q.Legend, -1) {
				if !slices.Contains(labels, m[1]) {
					t.Errorf("%s: the legend names %s, which is no label", where, m[1])
				}
			}
			for _, m := range variable.FindAllStringSubmatch(q.Expr, -1) {
				if !slices.Contains(known, m[1]) {
					t.Errorf("%s: there is no variable %s", where, m[1])
				}
			}
			exprs[where+" "+string(rune('A'+i))] = variable.ReplaceAllString(strings.ReplaceAll(q.Expr, "$__rate_interval", "5m"), ".*")
		}
	}
}

// checkSyntax has promtool read expressions, by the names of where they stand.
func checkSyntax(t *testing.T, exprs map[string]string) {
	t.Helper()
	type rule struct {
		Record string            `yaml:"record"`
		Expr   string            `yaml:"expr"`
		Labels map[string]string `yaml:"labels"`
	}
	var rules []rule
	for _, where := range slices.Sorted(maps.Keys(exprs)) {
		rules = append(rules, rule{"checked", exprs[where], map[string]string{"where": where}})
	}
	path := filepath.Join(t.TempDir(), "checked.yml")
	writeYAML(t, path, map[string]any{"groups": []map[string]any{{"name": "checked", "rules": rules}}})
	promtool(t, "check", "rules", path)
}
