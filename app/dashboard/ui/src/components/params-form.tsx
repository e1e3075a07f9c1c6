import { Group, JsonInput, Text, Title } from "@mantine/core";
import Form, { Widgets } from "@rjsf/mantine";
import { titleId, type ArrayFieldTitleProps, type DescriptionFieldProps, type FieldErrorProps, type FieldProps, type TitleFieldProps, type WidgetProps } from "@rjsf/utils";
import { useCallback, useEffect, useMemo, useRef, useState, type ComponentType } from "react";
import { useTranslation } from "react-i18next";

import type { JsonObject } from "../api/actions";
import type { Executor } from "../api/client";
import { json } from "../format";
import { parseJson } from "../json";
import { Choice } from "./choice";
import { ExactNumberField } from "./integer-field";
import { MomentWidget } from "./moment-widget";
import { errorText, wordOf } from "./params-words";
import { defaultsShown, extraErrors, friendly } from "./schema";
import { UnplacedErrors } from "./unplaced-errors";
import { validator } from "./validator";

const { CheckboxWidget } = Widgets as { CheckboxWidget: ComponentType<WidgetProps> };

interface Props {
  executor: Executor | undefined;
  value: JsonObject;
  onChange: (value: JsonObject) => void;
  onValid?: (isValid: boolean) => void;
  errors?: Record<string, string>;
}

interface FormContext {
  /** Whether the text of that input can be read. */
  tell: (id: string, isValid: boolean) => void;
}

/** Params of an executor: a form where it declares a schema, else JSON. */
export default function ParamsForm({ executor, value, onChange, onValid, errors = {} }: Props) {
  const { t } = useTranslation();
  const declared = executor?.info.params_schema;
  const schema = useMemo(() => (declared == null ? undefined : friendly(declared)), [declared]);
  const [left, setLeft] = useState<ReadonlySet<string>>(new Set());
  const own = useMemo(() => (schema === undefined ? [] : validator.validateFormData(value, schema).errors), [schema, value]);
  const isRefused = Object.keys(errors).some((path) => path.startsWith("params."));
  const shown = own.filter(({ property = "" }) => isRefused || wasLeft(left, property));
  const wrong: Record<string, string[]> = {};
  for (const error of shown) (wrong[`params${error.property ?? ""}`] ??= []).push(errorText(t, error));
  // What the browser finds wrong as well it says in the language of the page, which the server does not know.
  for (const [path, message] of Object.entries(errors)) wrong[path] ??= [message];
  const broken = useRef(new Set<string>());
  const tell = useCallback(
    (id: string, isValid: boolean) => {
      if (isValid) broken.current.delete(id);
      else broken.current.add(id);
      onValid?.(broken.current.size === 0);
    },
    [onValid],
  );
  if (schema === undefined) {
    const refused = Object.entries(errors).filter(([path]) => path === "params" || path.startsWith("params."));
    return <PlainJson value={value} onChange={onChange} onValid={onValid} error={refused.map(([path, message]) => (path === "params" ? message : `${path}: ${message}`)).join("\n")} />;
  }
  const untitled = { ...schema, title: undefined, description: undefined };
  return (
    <Form
      tagName="div"
      schema={untitled}
      validator={validator as never}
      formData={value}
      // All of them: what rjsf itself found would stay wrong until the field is left again, beside what the server says.
      extraErrors={extraErrors(wrong, "params") as never}
      onBlur={(id) => setLeft((before) => new Set(before).add(id))}
      translateString={(word, params) => wordOf(t, word, params)}
      onChange={(event) => onChange((event.formData ?? {}) as JsonObject)}
      noHtml5Validate
      showErrorList="bottom"
      uiSchema={{ "ui:submitButtonOptions": { norender: true }, ...defaultsShown(untitled) }}
      experimental_defaultFormStateBehavior={onlyWhatIsRequired}
      omitExtraData={false}
      templates={{ FieldErrorTemplate: FieldErrors, DescriptionFieldTemplate: Description, MultiSchemaFieldTemplate: Choice, ErrorListTemplate: UnplacedErrors, TitleFieldTemplate: PartTitle, ArrayFieldTitleTemplate: ListTitle }}
      fields={{ FallbackField: AnyJson, NumberField: ExactNumberField }}
      widgets={{ DateTimeWidget: MomentWidget, CheckboxWidget: DefaultedCheckbox }}
      formContext={{ tell } satisfies FormContext}
    >
      <></>
    </Form>
  );
}

/** Whether a person has been at that field, or inside it: until then nobody is told that it is empty. */
function wasLeft(left: ReadonlySet<string>, property: string): boolean {
  const id = `root${property.replaceAll(".", "_")}`;
  return [...left].some((one) => one === id || one.startsWith(`${id}_`));
}

/** Nothing is filled in that a person did not write: a default kept with a task would outlive its executor's, and
 * an optional object or list with a default somewhere in it could not be left out. */
const onlyWhatIsRequired = { arrayMinItems: { populate: "requiredOnly" }, emptyObjectFields: "populateRequiredDefaults" } as const;

/** What is left alone is what the executor takes it for, and an input has no grey for that: checked or not. */
function DefaultedCheckbox(props: WidgetProps) {
  return <CheckboxWidget {...props} value={(props.value as unknown) ?? props.schema.default} />;
}

/** Of an object: as large as the label of an input. */
function PartTitle({ id, title, optionalDataControl }: Pick<TitleFieldProps, "id" | "title" | "optionalDataControl">) {
  return (
    <Group justify="space-between">
      <Title id={id} order={3} size="sm" fw={500}>{title}</Title>
      {optionalDataControl}
    </Group>
  );
}

function ListTitle({ fieldPathId, title = "", optionalDataControl }: ArrayFieldTitleProps) {
  return <PartTitle id={titleId(fieldPathId)} title={title} optionalDataControl={optionalDataControl} />;
}

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
  const { tell } = registry.formContext as FormContext;
  const { $id: id, path } = fieldPathId;
  useEffect(() => () => tell(id, true), [tell, id]);
  return (
    <JsonText
      label={schema.title}
      description={schema.description}
      initial={formData === undefined ? "" : json(formData)}
      minRows={2}
      read={(text) => (text.trim() === "" ? { value: undefined } : parse(text))}
      onChange={(value) => onChange(value, path)}
      onValid={(isValid) => tell(id, isValid)}
      broken={t("execution.notJson")}
      error={rawErrors?.join(" ")}
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
  return (
    <JsonText
      label={t("form.paramsJson")}
      initial={json(value)}
      minRows={4}
      read={parseObject}
      onChange={onChange}
      onValid={onValid}
      broken={t("form.notJson")}
      error={error}
    />
  );
}

interface JsonTextProps<T> {
  label: string | undefined;
  description?: string | undefined;
  initial: string;
  minRows: number;
  read: (text: string) => { value: T } | undefined;
  onChange: (value: T) => void;
  onValid?: ((isValid: boolean) => void) | undefined;
  /** What to say while the text cannot be read. */
  broken: string;
  error: string | undefined;
}

/** A text that is read as JSON at every stroke. It does not reformat itself: what grows under a click swallows it. */
function JsonText<T>({ label, description, initial, minRows, read, onChange, onValid, broken, error }: JsonTextProps<T>) {
  const [text, setText] = useState(initial);
  return (
    <JsonInput
      label={label}
      description={description}
      value={text}
      autosize
      minRows={minRows}
      classNames={{ input: "mono" }}
      error={read(text) === undefined ? broken : error}
      onChange={(next) => {
        setText(next);
        const found = read(next);
        onValid?.(found !== undefined);
        if (found !== undefined) onChange(found.value);
      }}
    />
  );
}

function parseObject(text: string): { value: JsonObject } | undefined {
  const found = parse(text.trim() === "" ? "{}" : text);
  const value = found?.value;
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { value: value as JsonObject } : undefined;
}

function parse(text: string): { value: unknown } | undefined {
  try {
    return { value: parseJson(text) };
  } catch {
    return undefined;
  }
}
