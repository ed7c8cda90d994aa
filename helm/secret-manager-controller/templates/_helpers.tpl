{{- define "smc.fullname" -}}
{{- .Values.fullnameOverride | default "secret-manager-controller" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "smc.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "smc.fullname" .) -}}
{{- end -}}

{{- define "smc.selectorLabels" -}}
app.kubernetes.io/name: secret-manager-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "smc.labels" -}}
{{ include "smc.selectorLabels" . }}
app: secret-manager-controller
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "smc.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "smc.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "smc.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}
