package drivertest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Marks that scripts print at the start of a line.
const (
	sectionMark = "== "  // begins a section; its name follows
	failureMark = "FAIL" // what the script did not expect
)

// section is what a script printed about one subject.
type section struct {
	name  string
	lines []string
}

// transcript is all that a script printed.
type transcript []section

// readTranscript splits a text into its sections.
func readTranscript(text string) transcript {
	var t transcript
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if name, ok := strings.CutPrefix(line, sectionMark); ok {
			t = append(t, section{name: name})
			continue
		}
		if len(t) == 0 {
			t = append(t, section{name: "start"})
		}
		last := &t[len(t)-1]
		last.lines = append(last.lines, line)
	}
	return t
}

// find returns the section of the name, nil when there is none.
func (t transcript) find(name string) *section {
	for i := range t {
		if t[i].name == name {
			return &t[i]
		}
	}
	return nil
}

// failures returns the lines from the first failure on.
func (s section) failures() string {
	for i, line := range s.lines {
		if strings.HasPrefix(line, failureMark) {
			return strings.Join(s.lines[i:], "\n")
		}
	}
	return ""
}

// judge compares what was seen through the proxy (got, nil when the script did
// not come so far) with what PostgreSQL showed.
func (s section) judge(t *testing.T, got *section) {
	t.Helper()
	if got == nil {
		t.Fatal("through the proxy the script did not come to this section")
	}
	if diff := cmp.Diff(s.lines, got.lines); diff != "" {
		t.Errorf("through the proxy it differs (- PostgreSQL, + proxy):\n%s\nall of it through the proxy:\n%s",
			diff, strings.Join(got.lines, "\n"))
	}
}

func TestReadTranscript(t *testing.T) {
	got := readTranscript("before\n== a\nx\r\ny\n== b\nFAIL: z\nw\n== c\n")
	want := transcript{{"start", []string{"before"}}, {"a", []string{"x", "y"}}, {"b", []string{"FAIL: z", "w"}}, {"c", nil}}
	if diff := cmp.Diff(fmt.Sprintf("%q", want), fmt.Sprintf("%q", got)); diff != "" {
		t.Error(diff)
	}
	if got.find("b").failures() != "FAIL: z\nw" || got.find("a").failures() != "" || got.find("d") != nil {
		t.Error("failures or find are wrong")
	}
}
