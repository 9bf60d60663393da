package admin

import (
	"embed"
	"net/http"
	"path"
)

//go:embed web
var web embed.FS

// pageCSP lets the page run its own script and style sheet, and talk to the
// server that it came from; nothing else.
const pageCSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset serves one file of the dashboard. They are small and are not cached, so
// that a page never runs with the script of another version.
func asset(name string) (http.HandlerFunc, error) {
	content, err := web.ReadFile("web/" + name)
	if err != nil {
		return nil, err
	}
	kind := map[string]string{
		".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	}[path.Ext(name)]
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", pageCSP)
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(content)
	}, nil
}

// pages are the dashboard's files.
func pages() (all []route, err error) {
	for pattern, name := range map[string]string{
		"GET /{$}": "index.html", "GET /assets/dashboard.js": "dashboard.js", "GET /assets/steer.js": "steer.js", "GET /assets/dashboard.css": "dashboard.css", "GET /assets/icon.svg": "icon.svg",
	} {
		h, err := asset(name)
		if err != nil {
			return nil, err
		}
		all = append(all, route{pattern, mayLook, "", h})
	}
	return all, nil
}
