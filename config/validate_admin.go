package config

import (
	"fmt"
	"strings"
)

// adminListener checks who gets in at the admin address, and by which names it is asked for.
func (v *validator) adminListener() {
	a := &v.c.Admin
	if a.Login == AdminLoginRequired && len(a.AdminUsers)+len(a.MonitorUsers) == 0 {
		v.warn("admin.login", "asks for a password, and neither admin_users nor monitor_users names anybody who has one", "")
	}
	if t := v.c.Listen.TLS; a.TLS && (t == nil || t.Mode == TLSDisable) {
		v.add("admin.tls", "there is no certificate: listen.tls has none", "give listen.tls a certificate; with mode: allow clients need not encrypt")
	}
	for i, h := range a.Hosts {
		if h == "" || strings.ContainsAny(h, " /:*@[]") {
			v.add(v.listPath("admin.hosts", i), fmt.Sprintf("%q is not the name of a host", h), "such as proxy.example.com, without a port; IP addresses need not be listed")
		}
	}
}
