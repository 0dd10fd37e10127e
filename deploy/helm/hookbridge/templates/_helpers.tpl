{{- define "hookbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Short enough for the suffix of the admin service. */ -}}
{{- define "hookbridge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- else if contains (include "hookbridge.name" .) .Release.Name }}
{{- .Release.Name | trunc 57 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hookbridge.name" .) | trunc 57 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "hookbridge.selector" -}}
app.kubernetes.io/name: {{ include "hookbridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hookbridge.labels" -}}
{{ include "hookbridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "hookbridge.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "hookbridge.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "hookbridge.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{- /* What no schema can say. */ -}}
{{- define "hookbridge.validate" -}}
{{- if not (trim .Values.config) }}
{{- fail "config: is empty; give it the text of hookbridge.toml, e.g. --set-file config=hookbridge.toml" }}
{{- end }}
{{- if ge (int .Values.drainDelaySeconds) (int .Values.shutdownTimeoutSeconds) }}
{{- fail "drainDelaySeconds: must be less than shutdownTimeoutSeconds, which includes it" }}
{{- end }}
{{- if eq (int .Values.ports.http) (int .Values.ports.admin) }}
{{- fail "ports.admin: is ports.http, and each listener needs a port of its own" }}
{{- end }}
{{- $set := list "HOOKBRIDGE__HTTP__LISTEN" "HOOKBRIDGE__ADMIN__LISTEN" "HOOKBRIDGE__HTTP__DRAIN_DELAY" "HOOKBRIDGE__HTTP__SHUTDOWN_TIMEOUT" "HOOKBRIDGE_LOG" "HOOKBRIDGE_LOG_FORMAT" }}
{{- range .Values.env }}
{{- if has .name $set }}
{{- fail (printf "env: %s follows from listenAddress, ports, drainDelaySeconds, shutdownTimeoutSeconds or log; set that" .name) }}
{{- end }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.admin.from) }}
{{- fail "networkPolicy.admin.from: is empty, so Prometheus could not scrape; name its namespace, or set serviceMonitor.enabled to false" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: is empty; name the hosts, or set ingress.enabled to false" }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail "autoscaling.minReplicas: is greater than autoscaling.maxReplicas" }}
{{- end }}
{{- end }}
