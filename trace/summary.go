package trace

import "strings"

// summarize returns what a statement does and the first table that it names, from its text in one way of writing; "" for what is not
// plain to see. It is for names of spans: few, and without values.
func summarize(statement string) (operation, collection string) {
	words := strings.Fields(head(statement))
	if len(words) == 0 {
		return "", ""
	}
	operation = strings.ToUpper(words[0])
	if !plain(operation) {
		return "", ""
	}
	behind := map[string]string{"SELECT": "FROM", "DELETE": "FROM", "INSERT": "INTO", "MERGE": "INTO", "UPDATE": "UPDATE", "COPY": "COPY", "TRUNCATE": "TRUNCATE", "WITH": "FROM"}[operation]
	if behind == "" {
		return operation, ""
	}
	for i, w := range words[:len(words)-1] {
		if !strings.EqualFold(w, behind) {
			continue
		}
		next := words[i+1]
		for _, noise := range []string{"ONLY", "TABLE"} {
			if strings.EqualFold(next, noise) && i+2 < len(words) {
				next = words[i+2]
			}
		}
		if next = strings.TrimRight(next, ",;()"); named(next) {
			return operation, next
		}
		return operation, ""
	}
	return operation, ""
}

// headMax bounds how much of a text is looked at, in bytes.
const headMax = 2000

// head is the beginning of a text, with brackets apart from words.
func head(s string) string {
	return strings.NewReplacer("(", " ( ", ",", " , ").Replace(s[:min(len(s), headMax)])
}

func plain(word string) bool {
	return strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == "" && word != ""
}

// named reports whether a word is a name, with its schema or without.
func named(word string) bool {
	if word == "" || word[0] >= '0' && word[0] <= '9' {
		return false
	}
	return !strings.ContainsAny(word, "'$(){}")
}
