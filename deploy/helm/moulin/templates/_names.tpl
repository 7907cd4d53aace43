{{- define "moulin.name" -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{- /* Labels that select pods, of (dict "root" $ "component" "gateway"). */ -}}
{{- define "moulin.selector" -}}
app.kubernetes.io/name: moulin
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "moulin.labels" -}}
{{ include "moulin.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- /* What every pod has: no rights, no token, time to drain. */ -}}
{{- define "moulin.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add .Values.drainSec 60 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "moulin.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
{{- end -}}

{{- /* The resources of a container, of (dict "resources" … "path" "gateway"). Fails for what is no quantity. */ -}}
{{- define "moulin.resources" -}}
{{- $path := .path }}
{{- range $kind, $named := pick .resources "requests" "limits" }}
{{- range $name, $value := $named }}
{{- $isCpu := eq $name "cpu" }}
{{- $form := ternary `^[0-9]*\.?[0-9]+m?$` `^[0-9]*\.?[0-9]+([eE][+-]?[0-9]+|k|[MGTPE]|[KMGTPE]i)?$` $isCpu }}
{{- if not (regexMatch $form (toString $value)) }}
{{- fail (printf "%s.resources.%s.%s: expected a quantity such as %s, got %v" $path $kind $name (ternary "500m" "8Gi" $isCpu) $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml .resources }}
{{- end -}}

{{- /* Before SIGTERM: endpoints and DNS forget the pod, which serves on. */ -}}
{{- define "moulin.preStop" -}}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSec }}
{{- end -}}

{{- /* Pods on different machines and zones, as far as there are some. */ -}}
{{- define "moulin.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "moulin.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "moulin.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
