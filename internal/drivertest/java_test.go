package drivertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// jdbcDriver is where Debian's libpostgresql-jdbc-java puts it.
const jdbcDriver = "/usr/share/java/postgresql.jar"

// TestJDBC compiles testdata/java and runs it.
func TestJDBC(t *testing.T) {
	const advice = "run scripts/need-drivers.sh, or as root: apt-get install libpostgresql-jdbc-java default-jdk-headless"
	if _, err := os.Stat(jdbcDriver); err != nil {
		t.Fatalf("%v\n%s", err, advice)
	}
	sources, err := filepath.Glob("testdata/java/*.java")
	if err != nil {
		t.Fatal(err)
	}
	classes := t.TempDir()
	compile := exec.Command("javac", append([]string{"-encoding", "UTF-8", "-cp", jdbcDriver, "-d", classes}, sources...)...)
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v\n%s\n%s", err, out, advice)
	}
	compare(t, "jdbc", func(l leg, only []string) (string, error) {
		args := []string{"-Xmx2g", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Duser.timezone=UTC", "-Duser.language=en",
			"-cp", classes + ":" + jdbcDriver, "JdbcScript"}
		return runScript(l, nil, "java", append(args, only...)...)
	})
}
