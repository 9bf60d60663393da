package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the module's path; import paths below it are ours.
const Module = "shardproxy"

// testFloor is above all others: nothing of the product stands on it.
const testFloor = 99

// Floors returns the floor of each room: a package or a folder of packages.
// Imports go to lower floors only.
func Floors() map[string]int {
	return map[string]int{
		"testdata/sql": 0,

		"histogram": -1, "tally": -1,

		"wire": 0, "shardmap": 0, "gate": 0, "trace": 0, "cache": 0, "audit": 0,
		"query": 1, "catalog": 1, "config": 1,
		"router": 2, "pool": 2, "auth": 2, "metadata": 2,
		"exec": 3, "twopc": 3, "sequence": 3, "ddl": 3, "failover": 3, "rebalance": 3, "verify": 3,
		"proxy":          4,
		"admin":          5,
		"cmd/shardproxy": 6,

		"internal/pgcluster":  testFloor,
		"internal/pgtest":     testFloor,
		"internal/faultproxy": testFloor,
		"internal/clientrun":  testFloor,
		"internal/dashtest":   testFloor,
		"internal/drivertest": testFloor,
		"internal/ormtest":    testFloor,
		"internal/archtest":   testFloor,
		"internal/bench":      testFloor,
		"internal/queryset":   testFloor,
		"internal/tpch":       testFloor,
		"internal/chbench":    testFloor,
		"internal/listappend": testFloor,
		"internal/shiptest":   testFloor,
	}
}

// exceptions are imports allowed against the table.
func exceptions() [][2]string {
	return [][2]string{
		// "shardproxy demo" starts real servers with the tests' engine.
		{"cmd/shardproxy", "internal/pgcluster"},
	}
}

// Package is what the rules look at, as "go list -json" gives it.
type Package struct {
	ImportPath   string
	Name         string
	Doc          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// room returns the row of the table that a package belongs to.
func room(importPath string) (string, bool) {
	path := strings.TrimPrefix(importPath, Module+"/")
	for name := range Floors() {
		if path == name || strings.HasPrefix(path, name+"/") {
			return name, true
		}
	}
	return path, false
}

// JudgePackage returns the offences of one package, in words.
func JudgePackage(p Package) []string {
	from, known := room(p.ImportPath)
	if !known {
		return []string{fmt.Sprintf("%s is in no row of the table of floors", p.ImportPath)}
	}
	var bad []string
	if p.Doc == "" && len(p.GoFiles) > 0 {
		bad = append(bad, fmt.Sprintf("%s has no package comment", p.ImportPath))
	}
	if why := badName(p.Name); why != "" {
		bad = append(bad, fmt.Sprintf("%s: %s", p.ImportPath, why))
	}
	for _, to := range p.Imports {
		if why := judgeImport(from, to, false); why != "" {
			bad = append(bad, fmt.Sprintf("%s imports %s: %s", p.ImportPath, to, why))
		}
	}
	for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
		if why := judgeImport(from, to, true); why != "" {
			bad = append(bad, fmt.Sprintf("a test of %s imports %s: %s", p.ImportPath, to, why))
		}
	}
	return bad
}

// judgeImport says why a room may not import a path, or "". Tests may also use
// the test floor and rooms beside their own.
func judgeImport(from, importPath string, inTest bool) string {
	if importPath != Module && !strings.HasPrefix(importPath, Module+"/") {
		return ""
	}
	to, known := room(importPath)
	switch floors := Floors(); {
	case !known:
		return "it is in no row of the table of floors"
	case from == to || slices.Contains(exceptions(), [2]string{from, to}):
		return ""
	case floors[from] == testFloor:
		if floors[to] == floors["cmd/shardproxy"] {
			return "a command is imported by nothing"
		}
		return ""
	case floors[to] == testFloor:
		if inTest {
			return ""
		}
		return "product code does not stand on test code"
	case floors[to] < floors[from] || inTest && floors[to] == floors[from]:
		return ""
	case floors[to] == floors[from]:
		return fmt.Sprintf("both are on floor %d; imports go down, not sideways", floors[from])
	default:
		return fmt.Sprintf("floor %d must not know floor %d; imports go down", floors[from], floors[to])
	}
}

// badName says what is wrong with a package's name: a name must say what is in
// the package.
func badName(name string) string {
	name = strings.TrimSuffix(name, "_test")
	if strings.Contains(name, "util") ||
		slices.Contains([]string{"common", "types", "helper", "helpers", "models", "misc", "base", "lib", "manager"}, name) {
		return fmt.Sprintf("%q says nothing about what is in it", name)
	}
	return ""
}
