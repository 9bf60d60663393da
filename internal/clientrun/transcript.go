package clientrun

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Marks that scripts print at the start of a line.
const (
	SectionMark = "== "  // begins a section; its name follows
	FailureMark = "FAIL" // what the script did not expect
)

// Section is what a script printed about one subject.
type Section struct {
	Name  string
	Lines []string
}

// Transcript is all that a script printed.
type Transcript []Section

// ReadTranscript splits a text into its sections.
func ReadTranscript(text string) Transcript {
	var t Transcript
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if name, ok := strings.CutPrefix(line, SectionMark); ok {
			t = append(t, Section{Name: name})
			continue
		}
		if len(t) == 0 {
			t = append(t, Section{Name: "start"})
		}
		last := &t[len(t)-1]
		last.Lines = append(last.Lines, line)
	}
	return t
}

// Find returns the section of the name, nil when there is none.
func (t Transcript) Find(name string) *Section {
	for i := range t {
		if t[i].Name == name {
			return &t[i]
		}
	}
	return nil
}

// Failures returns the lines from the first failure on.
func (s Section) Failures() string {
	for i, line := range s.Lines {
		if strings.HasPrefix(line, FailureMark) {
			return strings.Join(s.Lines[i:], "\n")
		}
	}
	return ""
}

// Judge compares what was seen through the proxy (got, nil when the script did
// not come so far) with what PostgreSQL showed.
func (s Section) Judge(t testing.TB, got *Section) {
	t.Helper()
	if got == nil {
		t.Fatal("through the proxy the script did not come to this section")
	}
	if diff := cmp.Diff(s.Lines, got.Lines); diff != "" {
		t.Errorf("through the proxy it differs (- PostgreSQL, + proxy):\n%s\nall of it through the proxy:\n%s",
			diff, strings.Join(got.Lines, "\n"))
	}
}
