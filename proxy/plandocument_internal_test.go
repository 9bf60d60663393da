package proxy

import (
	"strings"
	"testing"
)

// Documents of one statement, as PostgreSQL writes them.
var planDocuments = map[planFormat]string{
	planJSON: "[\n  {\n    \"Plan\": {\n      \"Node Type\": \"Result\",\n      \"Total Cost\": 0.01\n    },\n    \"Settings\": {\n      \"a.b\": \"}\"\n    },\n    \"Planning Time\": 0.020\n  }\n]",
	planYAML: "- Plan: \n    Node Type: \"Result\"\n    Total Cost: 0.01\n  Settings: \n    a.b: \"}\"\n  Planning Time: 0.020",
	planXML: xmlHead + "\n  <Query>\n    <Plan>\n      <Node-Type>Result</Node-Type>\n      <Total-Cost>0.01</Total-Cost>\n    </Plan>\n    <Settings>\n" +
		"      <a.b>}</a.b>\n    </Settings>\n    <Planning-Time>0.020</Planning-Time>\n  </Query>\n</explain>",
}

// TestPlanDocuments takes documents apart and puts them together again, and takes none that is not of one statement.
func TestPlanDocuments(t *testing.T) {
	for f, document := range planDocuments {
		d, ok := f.read(document)
		if !ok {
			t.Fatalf("%s: not understood", f)
		}
		cost, _ := f.number(d.plan, "Total Cost")
		if time, _ := f.number(d.beside, "Planning Time"); cost != "0.01" || time != "0.020" {
			t.Errorf("%s: %q, %q", f, cost, time)
		}
		if _, ok := f.number(d.plan, "Cost"); ok {
			t.Errorf("%s: a cost", f)
		}
		if got := f.document(f.object("Plan", f.spliced(d.plan)), f.spliced(d.beside)); got != document {
			t.Errorf("%s: %s\nwant %s", f, got, document)
		}
		lines := strings.Split(document, "\n")
		for i := range lines[:len(lines)-1] {
			if _, ok := f.read(strings.Join(lines[:i], "\n")); ok && f != planYAML {
				t.Errorf("%s is read up to line %d", f, i)
			}
		}
		two := map[planFormat]string{
			planJSON: strings.TrimSuffix(document, "\n]") + ",\n" + strings.TrimPrefix(document, "[\n"),
			planYAML: document + "\n" + document,
			planXML:  strings.TrimSuffix(document, "\n"+xmlEnd) + strings.TrimPrefix(document, xmlHead),
		}[f]
		if _, ok := f.read(two); ok {
			t.Errorf("%s: two statements are read as one", f)
		}
	}
}

func FuzzPlanDocument(f *testing.F) {
	for format, document := range planDocuments {
		f.Add(string(format), document)
	}
	f.Add("yaml", "- Plan: ")
	f.Add("xml", xmlHead+"\n  <Query>\n    <Plan>\n    </Plan>\n  </Query>\n</explain>")
	f.Fuzz(func(t *testing.T, format, document string) {
		of := planFormat(format)
		if of != planJSON && of != planYAML && of != planXML {
			return
		}
		d, ok := of.read(document)
		if !ok {
			return
		}
		_, _ = of.number(d.plan, "Total Cost")
		if whole := of.document(of.object("Plan", of.list("Plans", []planEntry{of.below(shardPlan{shard: "s", read: 1}, &d)}))); whole == "" {
			t.Error("no document")
		}
	})
}
