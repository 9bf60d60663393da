package drivertest

import (
	"os/exec"
	"strings"
	"testing"
)

func TestNodePostgres(t *testing.T) { compareNode(t, "nodepg") }

func TestPostgresJS(t *testing.T) { compareNode(t, "postgresjs") }

// compareNode runs testdata/node/<client>_script.js with the pinned packages.
func compareNode(t *testing.T, client string) {
	var said strings.Builder
	install := exec.Command("../../scripts/node-modules.sh", "testdata/node")
	install.Stderr = &said
	modules, err := install.Output()
	if err != nil {
		t.Fatalf("install the Node.js drivers: %v\n%s", err, said.String())
	}
	compare(t, client, func(l leg, only []string) (string, error) {
		return runScript(l, []string{"NODE_PATH=" + strings.TrimSpace(string(modules)), "NODE_NO_WARNINGS=1"},
			"node", append([]string{"testdata/node/" + client + "_script.js"}, only...)...)
	})
}
