package helmtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chartDir = "../shardproxy"

const everything = `
config:
  users: [{name: app, password_file: /run/secrets/shop-app/password}]
  databases:
    shop:
      shards: [{name: s0, nodes: ["db-0:5432"]}, {name: s1, nodes: ["db-1:5432"]}]
      tables: {customers: {key: id}}
passwordSecrets: [shop-app, shop.control]
env: [{name: LEVEL, value: info}]
envFrom: [{secretRef: {name: more}}]
imagePullSecrets: [{name: puller}]
podLabels: {team: data}
podAnnotations: {note: x}
nodeSelector: {disk: ssd}
tolerations: [{key: a, operator: Exists}]
service: {annotations: {a: b}}
serviceAccount: {annotations: {a: b}}
serviceMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboards: {enabled: true}
networkPolicy: {enabled: true}
`

// object is what each rendered document must be.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	text []byte
}

// load packs the chart as "make chart" does and reads it. Rules and dashboards
// that the repository does not have are made up.
func load(t *testing.T) *chart.Chart {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chart.tgz")
	if out, err := exec.Command("../../../scripts/chart.sh", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c, err := loader.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	add := func(prefix, name, text string) {
		if !slices.ContainsFunc(c.Files, func(f *chart.File) bool { return strings.HasPrefix(f.Name, prefix) }) {
			c.Files = append(c.Files, &chart.File{Name: prefix + name, Data: []byte(text)})
		}
	}
	add("files/shardproxy.rules.yml", "", "groups:\n  - name: made-up\n    rules: [{alert: A, expr: 'up == 0', annotations: {summary: '{{ $labels.instance }}'}}]\n")
	add("files/dashboards/", "made-up.json", `{"title": "{{ x }}"}`)
	return c
}

// render does what "helm template" does: values checked by the schema, then the templates.
func render(c *chart.Chart, release, values string) (objects []object, err error) {
	v, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	all, err := chartutil.ToRenderValues(c, v, chartutil.ReleaseOptions{Name: release, Namespace: "db"}, nil)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		if strings.HasSuffix(name, ".tpl") {
			continue
		}
		for _, part := range strings.Split("\n"+text, "\n---\n") {
			if strings.TrimSpace(part) == "" {
				continue
			}
			o := object{text: []byte(part)}
			if err := yaml.Unmarshal(o.text, &o); err != nil {
				return nil, fmt.Errorf("%s: %w\n%s", name, err, part)
			}
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// strict reads every object as its type, unknown and repeated fields being
// errors, and returns them by kind and name.
func strict(t *testing.T, objects []object) map[string]any {
	t.Helper()
	got := map[string]any{}
	for _, o := range objects {
		var v any
		switch o.APIVersion + " " + o.Kind {
		case "apps/v1 Deployment":
			v = &appsv1.Deployment{}
		case "v1 Service":
			v = &corev1.Service{}
		case "v1 ServiceAccount":
			v = &corev1.ServiceAccount{}
		case "v1 ConfigMap":
			v = &corev1.ConfigMap{}
		case "v1 Secret":
			v = &corev1.Secret{}
		case "policy/v1 PodDisruptionBudget":
			v = &policyv1.PodDisruptionBudget{}
		case "networking.k8s.io/v1 NetworkPolicy":
			v = &networkingv1.NetworkPolicy{}
		case "monitoring.coreos.com/v1 ServiceMonitor", "monitoring.coreos.com/v1 PrometheusRule":
			v = &map[string]any{} // the operator's types are not Kubernetes' own
		default:
			t.Errorf("an object of %s %s", o.APIVersion, o.Kind)
			continue
		}
		if err := decode(o.text, v); err != nil {
			t.Errorf("%s %s: %v\n%s", o.Kind, o.Metadata.Name, err, o.text)
		}
		key := o.Kind + " " + o.Metadata.Name
		if got[key] != nil {
			t.Errorf("%s twice", key)
		}
		got[key] = v
		if o.Metadata.Labels["app.kubernetes.io/name"] != "shardproxy" {
			t.Errorf("%s has labels %v", key, o.Metadata.Labels)
		}
	}
	return got
}

// decode goes by JSON, as a client of Kubernetes does: a number where a text
// belongs is an error then.
func decode(text []byte, v any) error {
	j, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(j))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func mustRender(t *testing.T, release, values string) map[string]any {
	t.Helper()
	objects, err := render(load(t), release, values)
	if err != nil {
		t.Fatal(err)
	}
	return strict(t, objects)
}

func keys(m map[string]any) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// TestObjects: which objects there are, by default and with everything on.
func TestObjects(t *testing.T) {
	least := []string{"Deployment x-shardproxy", "PodDisruptionBudget x-shardproxy", "Secret x-shardproxy-config", "Service x-shardproxy", "Service x-shardproxy-admin", "ServiceAccount x-shardproxy"}
	if got := keys(mustRender(t, "x", "")); !slices.Equal(got, least) {
		t.Errorf("by default %q", got)
	}
	all := append([]string{"ConfigMap x-shardproxy-dashboards", "NetworkPolicy x-shardproxy", "PrometheusRule x-shardproxy", "ServiceMonitor x-shardproxy"}, least...)
	slices.Sort(all)
	if got := keys(mustRender(t, "x", everything)); !slices.Equal(got, all) {
		t.Errorf("with everything %q", got)
	}
	for _, release := range []string{"shardproxy", strings.Repeat("l", 53)} {
		for _, k := range keys(mustRender(t, release, everything)) {
			if _, name, _ := strings.Cut(k, " "); len(name) > 63 || strings.HasPrefix(name, "shardproxy-shardproxy") {
				t.Errorf("name %q", name)
			}
		}
	}
}

// TestDeployment: how a pod begins, is asked, and ends.
func TestDeployment(t *testing.T) {
	objects := mustRender(t, "x", everything+"drain: {delaySeconds: 7, timeoutSeconds: 50}\n")
	d := objects["Deployment x-shardproxy"].(*appsv1.Deployment)
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	for what, ok := range map[string]bool{
		"two replicas":       *d.Spec.Replicas == 2,
		"never fewer":        d.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() == 0,
		"time to end":        *pod.TerminationGracePeriodSeconds == 67,
		"waits first":        slices.Equal(c.Lifecycle.PreStop.Exec.Command, []string{"sleep", "7"}),
		"liveness":           c.LivenessProbe.HTTPGet.Path == "/livez",
		"readiness":          c.ReadinessProbe.HTTPGet.Path == "/readyz",
		"not root":           *pod.SecurityContext.RunAsNonRoot && *pod.SecurityContext.RunAsUser != 0,
		"read-only":          *c.SecurityContext.ReadOnlyRootFilesystem && !*c.SecurityContext.AllowPrivilegeEscalation,
		"no token":           !*pod.AutomountServiceAccountToken,
		"apart":              len(pod.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 1,
		"mounted":            len(c.VolumeMounts) == 3 && len(pod.Volumes) == 3 && c.VolumeMounts[1].MountPath == "/run/secrets/shop-app",
		"image":              c.Image == "shardproxy:0.1.0",
		"restart by content": len(d.Spec.Template.Annotations["checksum/config"]) == 64 && d.Spec.Template.Annotations["note"] == "x",
		"labels":             d.Spec.Template.Labels["team"] == "data",
	} {
		if !ok {
			t.Errorf("%s: not so", what)
		}
	}
	for key, value := range d.Spec.Selector.MatchLabels {
		if d.Spec.Template.Labels[key] != value {
			t.Errorf("the selector wants %s=%s", key, value)
		}
	}
	ports := map[string]bool{}
	for _, p := range c.Ports {
		ports[p.Name] = true
	}
	for _, name := range []string{"x-shardproxy", "x-shardproxy-admin"} {
		s := objects["Service "+name].(*corev1.Service)
		if p := s.Spec.Ports[0].TargetPort.StrVal; !ports[p] {
			t.Errorf("%s leads to port %q", name, p)
		}
	}
	n := objects["NetworkPolicy x-shardproxy"].(*networkingv1.NetworkPolicy)
	if len(n.Spec.Ingress) != 2 {
		t.Errorf("%d rules", len(n.Spec.Ingress))
	}
	apart := mustRender(t, "x", "antiAffinityRequired: true")["Deployment x-shardproxy"].(*appsv1.Deployment)
	if len(apart.Spec.Template.Spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution) != 1 {
		t.Error("pods may share a node")
	}
	closed := mustRender(t, "x", "networkPolicy: {enabled: true, clients: [], admin: []}")["NetworkPolicy x-shardproxy"].(*networkingv1.NetworkPolicy)
	if len(closed.Spec.Ingress) != 0 || len(closed.Spec.PolicyTypes) != 1 {
		t.Errorf("empty lists let somebody in: %+v", closed.Spec)
	}
}

// TestConfiguration: the file is what the values say, and the program takes it
// (SHARDPROXY_BIN names it).
func TestConfiguration(t *testing.T) {
	file := func(values string) string {
		objects := mustRender(t, "x", values)
		if s, ok := objects["Secret x-shardproxy-config"].(*corev1.Secret); ok {
			return s.StringData["shardproxy.yaml"]
		}
		return objects["ConfigMap x-shardproxy-config"].(*corev1.ConfigMap).Data["shardproxy.yaml"]
	}
	text := strings.Replace(everything, "password_file: /run/secrets/shop-app/password", "password: x", 1)
	if a, b := file(text), file(text+"configInSecret: false\n"); a != b || a == "" {
		t.Errorf("%q and %q", a, b)
	}
	checkFile(t, file(text))
	checkFile(t, file(strings.Replace(text, "config:", "config:\n  admin: {admin_users: [app]}\n  limits: {max_clients: 1000000}\n  listen: {unix_socket_mode: '0770'}", 1)))
}

// TestAdminTLS: with admin.tls probes and Prometheus ask by TLS.
func TestAdminTLS(t *testing.T) {
	for values, want := range map[string]string{"": "", "admin: {tls: false}": "", "admin: {tls: true}": "HTTPS"} {
		text := everything
		if values != "" {
			text = strings.Replace(text, "config:", "config:\n  "+values, 1)
		}
		objects := mustRender(t, "x", text)
		c := objects["Deployment x-shardproxy"].(*appsv1.Deployment).Spec.Template.Spec.Containers[0]
		for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if string(p.HTTPGet.Scheme) != want {
				t.Errorf("%q: a probe asks by %q", values, p.HTTPGet.Scheme)
			}
		}
		monitor := *objects["ServiceMonitor x-shardproxy"].(*map[string]any)
		end := monitor["spec"].(map[string]any)["endpoints"].([]any)[0].(map[string]any)
		if (end["scheme"] == "https") != (want != "") {
			t.Errorf("%q: Prometheus is told %v", values, end)
		}
	}
}

// TestRules: the repository's rules and dashboards arrive as they are.
func TestRules(t *testing.T) {
	c := load(t)
	objects := mustRender(t, "x", everything)
	rule := *objects["PrometheusRule x-shardproxy"].(*map[string]any)
	want := map[string]any{}
	for _, f := range c.Files {
		if f.Name == "files/shardproxy.rules.yml" {
			if err := yaml.Unmarshal(f.Data, &want); err != nil {
				t.Fatal(err)
			}
		} else if strings.HasPrefix(f.Name, "files/dashboards/") {
			boards := objects["ConfigMap x-shardproxy-dashboards"].(*corev1.ConfigMap)
			if got := boards.Data[filepath.Base(f.Name)]; strings.TrimSpace(got) != strings.TrimSpace(string(f.Data)) {
				t.Errorf("%s differs", f.Name)
			}
		}
	}
	if fmt.Sprint(rule["spec"]) != fmt.Sprint(want) {
		t.Errorf("rules %v, want %v", rule["spec"], want)
	}
	monitor := *objects["ServiceMonitor x-shardproxy"].(*map[string]any)
	selector := monitor["spec"].(map[string]any)["selector"].(map[string]any)["matchLabels"].(map[string]any)
	admin := objects["Service x-shardproxy-admin"].(*corev1.Service).Labels
	clients := objects["Service x-shardproxy"].(*corev1.Service).Labels
	alike := 0
	for key, value := range selector {
		if admin[key] != value {
			t.Errorf("the monitor wants %s=%v of the admin service", key, value)
		}
		if clients[key] == value {
			alike++
		}
	}
	if alike == len(selector) {
		t.Error("the monitor takes the clients' service too")
	}
}

// TestRefused: what cannot be right is refused with the reason.
func TestRefused(t *testing.T) {
	for values, want := range map[string]string{
		"config: {databases: {}, shutdown: {timeout: 1s}}":  "drain.timeoutSeconds",
		"config: {databases: {}, listen: {address: 'x:1'}}": "port 6432",
		"config: {databases: {}, admin: {address: ''}}":     "port 9127",
		"replicas: 0": "replicas", "replica: 3": "replica", "image: {pullPolicy: Sometimes}": "pullPolicy",
		"drain: {delaySeconds: -1}": "delaySeconds", "passwordSecrets: ['a/../b']": "passwordSecrets",
		"service: {port: 0}": "port",
	} {
		if _, err := render(load(t), "x", values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", values, err, want)
		}
	}
	bare, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	bare.Files = nil
	for values, want := range map[string]string{"prometheusRule: {enabled: true}": "without files", "dashboards: {enabled: true}": "without files"} {
		if _, err := render(bare, "x", values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", values, err)
		}
	}
}

// TestLint runs Helm's own checks.
func TestLint(t *testing.T) {
	for _, m := range lint.All(chartDir, map[string]any{}, "db", true).Messages {
		if m.Severity > support.InfoSev {
			t.Error(m)
		}
	}
}
