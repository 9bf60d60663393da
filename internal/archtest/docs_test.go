package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// inlineLink matches [text](target) of Markdown.
var inlineLink = regexp.MustCompile(`\]\(([^()\s]+)\)`)

// inlineCode matches a piece of code within a line.
var inlineCode = regexp.MustCompile("`[^`]*`")

// prose returns the lines of a Markdown text outside of its code blocks.
func prose(content string) []string {
	var lines []string
	in := false
	for line := range strings.Lines(content) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			in = !in
		} else if !in {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

// links returns the targets of a Markdown text that are in the repository.
func links(content string) []string {
	var all []string
	for _, line := range prose(content) {
		for _, m := range inlineLink.FindAllStringSubmatch(inlineCode.ReplaceAllString(line, "x"), -1) {
			if !strings.Contains(m[1], "://") && !strings.HasPrefix(m[1], "mailto:") {
				all = append(all, m[1])
			}
		}
	}
	return all
}

// titles counts the headings of the first level.
func titles(content string) (n int) {
	for _, line := range prose(content) {
		if strings.HasPrefix(line, "# ") {
			n++
		}
	}
	return n
}

// anchors returns what the headings of a Markdown text are called in links.
func anchors(content string) []string {
	var all []string
	for _, line := range prose(content) {
		title := strings.TrimLeft(line, "#")
		if title == line || !strings.HasPrefix(title, " ") {
			continue
		}
		all = append(all, strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.TrimSpace(title)))
	}
	return all
}

// badLinks returns the links of the file that lead nowhere; read returns what
// is at a path, or an error.
func badLinks(path, content string, read func(path string) (string, error)) (bad []string) {
	for _, target := range links(content) {
		file, anchor, _ := strings.Cut(target, "#")
		text := content
		if file != "" {
			var err error
			if text, err = read(filepath.Join(filepath.Dir(path), file)); err != nil {
				bad = append(bad, path+": the link "+target+" leads nowhere")
				continue
			}
		}
		if anchor != "" && !slices.Contains(anchors(text), anchor) {
			bad = append(bad, path+": the link "+target+" names no heading")
		}
	}
	return bad
}

// readOrList reads a file; a folder is there, and has no text.
func readOrList(path string) (string, error) {
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		return "", err
	}
	content, err := os.ReadFile(path)
	return string(content), err
}

// TestLinks follows every link within the repository's documents, and wants
// each page under docs to be found from README.md.
func TestLinks(t *testing.T) {
	pages := map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "node_modules") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".md" {
			return nil
		}
		content, err := os.ReadFile(path)
		pages[filepath.Clean(path)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range pages {
		if n := titles(content); n != 1 {
			t.Errorf("%s has %d titles (# ...), want one", path, n)
		}
		for _, bad := range badLinks(path, content, readOrList) {
			t.Error(bad)
		}
	}
	reached := map[string]bool{}
	follow := []string{filepath.Join(root, "README.md")}
	for len(follow) > 0 {
		path := follow[0]
		follow = follow[1:]
		if reached[path] {
			continue
		}
		reached[path] = true
		for _, target := range links(pages[path]) {
			file, _, _ := strings.Cut(target, "#")
			follow = append(follow, filepath.Join(filepath.Dir(path), file))
		}
	}
	for path := range pages {
		if strings.HasPrefix(path, filepath.Join(root, "docs")+string(filepath.Separator)) && !reached[path] {
			t.Errorf("%s is not linked from README.md or a page that is", path)
		}
	}
	if len(pages) < 10 {
		t.Errorf("saw %d documents only", len(pages))
	}
}

func TestTitles(t *testing.T) {
	for content, want := range map[string]int{"# A\n## B\n": 1, "# A\n\n# B\n": 2, "text\n```\n# a comment\n```\n": 0} {
		if got := titles(content); got != want {
			t.Errorf("%q: %d titles, want %d", content, got, want)
		}
	}
}

// TestLinkOffences shows that the rules see what they are there for.
func TestLinkOffences(t *testing.T) {
	files := map[string]string{"docs/a.md": "# A page, with: `code`\n## Second part\n", "docs/b.md": ""}
	read := func(path string) (string, error) {
		content, ok := files[path]
		if !ok {
			return "", fs.ErrNotExist
		}
		return content, nil
	}
	for _, test := range []struct{ content, want string }{
		{"[x](a.md) [y](https://example.org/nowhere) [z](mailto:x@example.org)", ""},
		{"[x](../docs/a.md)", ""},
		{"[x](c.md)", "leads nowhere"},
		{"see [x](a.md) and [y](d/e.md).", "link d/e.md leads nowhere"},
		{"[x](a.md#second-part) [y](a.md#a-page-with-code)", ""},
		{"[x](a.md#third-part)", "names no heading"},
		{"[x](#here)\n\n# Here\n", ""},
		{"[x](#there)\n\n# Here\n", "names no heading"},
		{"```\n[x](c.md)\n```\n", ""},
		{"`m[k](c.md)` is code", ""},
	} {
		expect(t, test.content, badLinks("docs/b.md", test.content, read), test.want)
	}
}
