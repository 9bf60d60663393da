package drivertest

import "testing"

// debianPython is the interpreter that Debian's driver packages are made for,
// whatever comes first in PATH.
const debianPython = "/usr/bin/python3"

func TestPsycopg3(t *testing.T) { comparePython(t, "psycopg3") }

func TestPsycopg2(t *testing.T) { comparePython(t, "psycopg2") }

// comparePython runs testdata/python/<client>_script.py.
func comparePython(t *testing.T, client string) {
	compare(t, client, func(l leg, only []string) (string, error) {
		return runScript(l, []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0", "PYTHONIOENCODING=utf-8"},
			debianPython, append([]string{"-u", "testdata/python/" + client + "_script.py"}, only...)...)
	})
}
