package clientrun

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadTranscript(t *testing.T) {
	got := ReadTranscript("before\n== a\nx\r\ny\n== b\nFAIL: z\nw\n== c\n")
	want := Transcript{{"start", []string{"before"}}, {"a", []string{"x", "y"}}, {"b", []string{"FAIL: z", "w"}}, {"c", nil}}
	if diff := cmp.Diff(fmt.Sprintf("%q", want), fmt.Sprintf("%q", got)); diff != "" {
		t.Error(diff)
	}
	if got.Find("b").Failures() != "FAIL: z\nw" || got.Find("a").Failures() != "" || got.Find("d") != nil {
		t.Error("failures or find are wrong")
	}
}
