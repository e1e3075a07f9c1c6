import { JsonInput, Stack, Text } from "@mantine/core";
import Form from "@rjsf/mantine";
import type { DescriptionFieldProps, FieldErrorProps, FieldProps } from "@rjsf/utils";
import { useMemo, useState } from "react";
import { useTranslation } from "react-i18next";

import type { JsonObject } from "../api/actions";
import type { Executor } from "../api/client";
import { json } from "../format";
import { defaultsShown, extraErrors, friendly } from "./schema";
import { validator } from "./validator";

interface Props {
  executor: Executor | undefined;
  value: JsonObject;
  onChange: (value: JsonObject) => void;
  onValid?: (isValid: boolean) => void;
  errors?: Record<string, string>;
}

/** Params of an executor: a form where it declares a schema, else JSON. */
export default function ParamsForm({ executor, value, onChange, onValid, errors = {} }: Props) {
  const declared = executor?.info.params_schema;
  const schema = useMemo(() => (declared == null ? undefined : friendly(declared)), [declared]);
  const extra = useMemo(() => extraErrors(errors, "params"), [errors]);
  if (schema === undefined) {
    return <PlainJson value={value} onChange={onChange} onValid={onValid} error={errors.params} />;
  }
  const untitled = { ...schema, title: undefined, description: undefined };
  return (
    <Form
      tagName="div"
      schema={untitled}
      validator={validator as never}
      formData={value}
      extraErrors={extra as never}
      onChange={(event) => onChange((event.formData ?? {}) as JsonObject)}
      noHtml5Validate
      showErrorList={false}
      liveValidate="onBlur"
      uiSchema={{ "ui:submitButtonOptions": { norender: true }, ...defaultsShown(untitled) }}
      experimental_defaultFormStateBehavior={onlyWhatIsRequired}
      omitExtraData={false}
      templates={{ FieldErrorTemplate: FieldErrors, DescriptionFieldTemplate: Description }}
      fields={{ FallbackField: AnyJson }}
      formContext={{ onValid }}
    >
      <></>
    </Form>
  );
}

/** Nothing is filled in that a person did not write: a default kept with a task would outlive its executor's, and
 * an optional object or list with a default somewhere in it could not be left out. */
const onlyWhatIsRequired = { arrayMinItems: { populate: "requiredOnly" }, emptyObjectFields: "populateRequiredDefaults" } as const;

/** As small as the descriptions that inputs show themselves: of a checkbox, an object and a list rjsf shows it. */
function Description({ id, description }: DescriptionFieldProps) {
  return description ? <Text id={id} size="xs" c="dimmed">{description}</Text> : null;
}

/** Inputs show their errors themselves; what is wrong with a whole object or list has no input to stand at. */
function FieldErrors({ errors = [], schema }: FieldErrorProps) {
  if (errors.length === 0 || (schema.type !== "object" && schema.type !== "array")) return null;
  return <>{errors.map((error, index) => <Text key={index} size="sm" c="var(--mantine-color-error)">{error}</Text>)}</>;
}

/** What may be any JSON, of which rjsf knows no input. */
function AnyJson({ schema, formData, onChange, fieldPathId, registry, rawErrors }: FieldProps) {
  const { t } = useTranslation();
  const [text, setText] = useState(() => (formData === undefined ? "" : json(formData)));
  const [isBroken, setBroken] = useState(false);
  return (
    <JsonInput
      label={schema.title}
      description={schema.description}
      value={text}
      autosize
      minRows={2}
      classNames={{ input: "mono" }}
      error={isBroken ? t("execution.notJson") : rawErrors?.join(" ")}
      onChange={(next) => {
        setText(next);
        const parsed = next.trim() === "" ? { value: undefined } : parseAny(next);
        setBroken(parsed === undefined);
        (registry.formContext as Pick<Props, "onValid">).onValid?.(parsed !== undefined);
        if (parsed !== undefined) onChange(parsed.value, fieldPathId.path);
      }}
    />
  );
}

interface PlainProps {
  value: JsonObject;
  onChange: (value: JsonObject) => void;
  onValid?: ((isValid: boolean) => void) | undefined;
  error?: string | undefined;
}

function PlainJson({ value, onChange, onValid, error }: PlainProps) {
  const { t } = useTranslation();
  const [text, setText] = useState(() => json(value));
  const [isBroken, setBroken] = useState(false);
  return (
    <Stack gap={4}>
      <JsonInput
        label={t("form.paramsJson")}
        value={text}
        autosize
        minRows={4}
        classNames={{ input: "mono" }}
        error={isBroken ? t("form.notJson") : error}
        onChange={(next) => {
          setText(next);
          const parsed = parse(next);
          setBroken(parsed === undefined);
          onValid?.(parsed !== undefined);
          if (parsed !== undefined) onChange(parsed);
        }}
      />
    </Stack>
  );
}

function parse(text: string): JsonObject | undefined {
  const value = parseAny(text.trim() === "" ? "{}" : text)?.value;
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

function parseAny(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch {
    return undefined;
  }
}
