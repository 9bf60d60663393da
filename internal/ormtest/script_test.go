package ormtest

import (
	"os/exec"
	"strings"
	"testing"

	"shardproxy/internal/clientrun"
)

// debianPython is the interpreter that Debian's packages are made for,
// whatever comes first in PATH.
const debianPython = "/usr/bin/python3"

func TestSQLAlchemy(t *testing.T) { comparePython(t, "sqlalchemy") }

func TestDjango(t *testing.T) { comparePython(t, "django") }

// comparePython runs testdata/<name>/application.py.
func comparePython(t *testing.T, name string) {
	compare(t, name, func(l leg) (string, error) {
		return clientrun.Script{
			Program: debianPython, Args: []string{"-u", "application.py"}, Dir: "testdata/" + name,
			Env: append(l.environment(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0", "PYTHONIOENCODING=utf-8", "PYTHONPATH=.."),
		}.Run()
	})
}

// TestKnex runs testdata/knex/application.js with the pinned packages.
func TestKnex(t *testing.T) {
	var said strings.Builder
	install := exec.Command("../../scripts/node-modules.sh", "testdata/knex")
	install.Stderr = &said
	modules, err := install.Output()
	if err != nil {
		t.Fatalf("install the Node.js packages: %v\n%s", err, said.String())
	}
	compare(t, "knex", func(l leg) (string, error) {
		return clientrun.Script{
			Program: "node", Args: []string{"application.js"}, Dir: "testdata/knex",
			Env: append(l.environment(), "NODE_PATH="+strings.TrimSpace(string(modules)), "NODE_NO_WARNINGS=1"),
		}.Run()
	})
}
