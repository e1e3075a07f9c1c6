import { Text } from "@mantine/core";
import { toPath, type ErrorListProps, type RJSFSchema, type SchemaUtilsType } from "@rjsf/utils";

/** Whether the form has an input, or a group of them, where that stands. */
function hasPlace(utils: SchemaUtilsType, schema: RJSFSchema, [part, ...rest]: (string | number)[]): boolean {
  if (part === undefined) return true;
  const { properties = {}, patternProperties = {}, items, additionalProperties, anyOf = [], oneOf = [] } = utils.retrieveSchema(schema);
  const inside = [properties[part], ...Object.values(patternProperties), additionalProperties, ...[items].flat()];
  const isObject = (one: unknown): one is RJSFSchema => typeof one === "object" && one !== null;
  return inside.filter(isObject).some((one) => hasPlace(utils, one, rest)) || [...anyOf, ...oneOf].filter(isObject).some((one) => hasPlace(utils, one, [part, ...rest]));
}

/** The errors that no field shows: of a param that the schema does not know, or in what is typed as JSON. */
export function UnplacedErrors({ errors, schema, registry }: ErrorListProps) {
  const unplaced = errors.filter(({ property = "" }) => !hasPlace(registry.schemaUtils, schema, toPath(property)));
  return <>{unplaced.map(({ property, message }) => <Text key={`${property} ${message}`} size="sm" c="var(--mantine-color-error)">{property?.replace(/^\./, "")}: {message}</Text>)}</>;
}
