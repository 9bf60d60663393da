{{- define "shardproxy.name" -}}
{{- if contains "shardproxy" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-shardproxy" (.Release.Name | trunc 39 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "shardproxy.selector" -}}
app.kubernetes.io/name: shardproxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shardproxy.labels" -}}
{{ include "shardproxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The whole configuration. What the pods' ports and end depend on is set here alone. */}}
{{- define "shardproxy.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if hasKey $config "shutdown" }}{{ fail "config.shutdown is made of drain.timeoutSeconds: set that" }}{{ end }}
{{- $listen := default dict $config.listen }}
{{- $admin := default dict $config.admin }}
{{- if hasKey $listen "address" }}{{ fail "config.listen.address is the chart's: pods listen on port 6432" }}{{ end }}
{{- if hasKey $admin "address" }}{{ fail "config.admin.address is the chart's: pods listen on port 9127" }}{{ end }}
{{- $_ := set $config "listen" (merge $listen (dict "address" "*:6432")) }}
{{- $_ := set $config "admin" (merge $admin (dict "address" "*:9127")) }}
{{- $_ := set $config "shutdown" (dict "timeout" (printf "%ds" (int .Values.drain.timeoutSeconds))) }}
{{- toYaml $config }}
{{- end }}
